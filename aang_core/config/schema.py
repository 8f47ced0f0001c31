"""The one language for tables: settings, ``task.toml``, spaces, sweeps, recipes, reports and options.

A rule says what a value may be. Small rules (`Integer`, `Text`, …) make big ones (`ListOf`, `Table`, and `RecordOf` in
`config.fields`). A rule finds every fault of a value, each with its path (`Rule.faults`), converts a valid value to the
form that the program uses (`Rule.convert`), and reads the text of a command-line flag (`Rule.read`). `checked` does
this for a whole table and says where each faulty key was written. A rule is also an attrs validator, so a record
made in Python is checked in the same way.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import attrs

from aang_core.errors import AangError, ConfigError, did_you_mean, nearest, one_message
from aang_core.files import toml_of

Path = tuple[str | int, ...]
"""Where in a table something is: names of keys and places in lists, from the outside in."""

Fault = tuple[Path, str]
"""Where a fault is, and what it is: ``(("training", "lr"), "must be a number above 0 (got -1)")``."""

_LONGEST = 200  # characters of a wrong value in a message
_HALF = re.compile("[\ud800-\udfff]")
"""Half of a pair of characters; Python has them for names of files that are not UTF-8."""


@attrs.frozen
class Rule(ABC):
    """Base of the rules. An instance is an attrs validator."""

    @property
    @abstractmethod
    def wanted(self) -> str:
        """What a value must be: ``a number above 0``."""

    @abstractmethod
    def faults(self, value: Any) -> Iterator[Fault]:
        """Everything that is wrong with a value; nothing where it is right."""

    def convert(self, value: Any) -> Any:
        """A right value in the form that the record keeps, where that differs from what TOML gives."""
        return value

    def read(self, text: str) -> Any:
        """The value that a flag's text stands for; what it cannot be, `faults` will say."""
        return toml_value(text)

    def inner(self, _key: str) -> Rule | None:
        """The rule of what stands under a key; None where nothing may, or is known."""
        return None

    def refusal(self, value: Any) -> Fault:
        """The fault of a value that is something else altogether."""
        return (), f"must be {self.wanted} (got {got(value)})"

    def __call__(self, instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        """Validate on construction.

        :raises ConfigError: where the value breaks the rule; names every fault.
        """
        kind, key = type(instance).__name__, attribute.name.rstrip("_")
        faults = [f"{kind}: {said((key, *path), text)}" for path, text in self.faults(value)]
        if faults:
            raise ConfigError(one_message(faults, kind))


class Scalar(Rule):
    """Base of the rules for values that hold no others: right or not."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether the value is right."""

    def faults(self, value: Any) -> Iterator[Fault]:
        if not self.holds(value):
            yield self.refusal(value)


@attrs.frozen
class Anything(Scalar):
    """Any value: somebody else checks it."""

    wanted: ClassVar[str] = "anything"

    def holds(self, _value: Any) -> bool:
        return True


@attrs.frozen
class Null(Scalar):
    """JSON's null."""

    wanted: ClassVar[str] = "null"

    def holds(self, value: Any) -> bool:
        return value is None


@attrs.frozen
class Flag(Scalar):
    """True or false."""

    wanted: ClassVar[str] = "true or false"

    def holds(self, value: Any) -> bool:
        return isinstance(value, bool)


@attrs.frozen
class Integer(Scalar):
    """A whole number; `least` and `most` are allowed, None is no bound; `word` is a text that stands for 0."""

    least: int | None = None
    most: int | None = None
    word: str = ""

    @property
    def wanted(self) -> str:
        bounds = "" if self.least is None else f" of at least {self.least}"
        if self.most is not None:
            bounds = f" from {self.least} to {self.most}"
        return f"a whole number{bounds}" + (f", or {self.word!r}" if self.word else "")

    def holds(self, value: Any) -> bool:
        if type(value) is not int:  # a bool is no number here
            return bool(self.word) and value == self.word
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    def convert(self, value: Any) -> Any:
        return 0 if value == self.word else value


@attrs.frozen
class Number(Scalar):
    """A finite number: ``least <= value <= most``; the named ends can be left out."""

    least: float = -math.inf
    most: float = math.inf
    without_least: bool = False
    without_most: bool = False

    @property
    def wanted(self) -> str:
        bounds = []
        if math.isfinite(self.least):
            bounds.append(f"{'above' if self.without_least else 'of at least'} {self.least:g}")
        if math.isfinite(self.most):
            bounds.append(f"{'below' if self.without_most else 'at most'} {self.most:g}")
        return f"a number {' and '.join(bounds)}".rstrip()

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        low = number > self.least if self.without_least else number >= self.least
        high = number < self.most if self.without_most else number <= self.most
        return math.isfinite(number) and low and high

    def convert(self, value: Any) -> Any:
        return float(value)


@attrs.frozen
class Text(Scalar):
    """A text.

    :param empty: whether it may hold nothing but spaces.
    :param printable: whether all of it must show on a terminal, as names must.
    """

    empty: bool = False
    printable: bool = False

    @property
    def wanted(self) -> str:
        kind = "printable text" if self.printable else "text"
        return f"a {kind}{'' if self.empty else ' that is not empty'}"

    def holds(self, value: Any) -> bool:
        if not isinstance(value, str) or (self.printable and not value.isprintable()):
            return False
        return self.empty or bool(value.strip())

    def faults(self, value: Any) -> Iterator[Fault]:
        # no file can be named so, and none can hold it
        if isinstance(value, str) and (_HALF.search(value) or "\0" in value):
            wanted = "a text without null characters, all of it UTF-8"
            yield (), f"must be {wanted} (got {got(value)})"
        else:
            yield from super().faults(value)

    def read(self, text: str) -> Any:
        return _unquoted(text)


@attrs.frozen
class Choice(Scalar):
    """One of a few texts."""

    options: tuple[str, ...]

    @property
    def wanted(self) -> str:
        return f"one of {', '.join(repr(option) for option in self.options)}"

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.options

    def refusal(self, value: Any) -> Fault:
        path, text = super().refusal(value)
        return path, text + nearest(str(value), self.options)

    def read(self, text: str) -> Any:
        return _unquoted(text)


@attrs.frozen
class OneOf(Rule):
    """What one of several rules allows, such as a table or null."""

    rules: tuple[Rule, ...]

    @property
    def wanted(self) -> str:
        return ", or ".join(rule.wanted for rule in self.rules)

    def faults(self, value: Any) -> Iterator[Fault]:
        found = [list(rule.faults(value)) for rule in self.rules]
        if all(found):
            # faults inside a table or a list tell more than that it might have been something else
            inside = [faults for faults in found if all(path for path, _ in faults)]
            yield from inside[0] if inside else [self.refusal(value)]

    def convert(self, value: Any) -> Any:
        return next(rule for rule in self.rules if not any(rule.faults(value))).convert(value)


@attrs.frozen
class ListOf(Rule):
    """A list of at least `least` things (`what`), kept as a tuple.

    :param unique: whether each may be there only once.
    """

    item: Rule
    least: int = 0
    what: str = "item"
    unique: bool = True

    @property
    def wanted(self) -> str:
        return "a list" + (f" of at least {_counted(self.least, self.what)}" if self.least else "")

    def faults(self, value: Any) -> Iterator[Fault]:
        if not isinstance(value, (list, tuple)) or len(value) < self.least:
            yield self.refusal(value)
            return
        found = list(_within(enumerate(value), lambda _: self.item))
        yield from found
        if self.unique and not found and len(set(value)) < len(value):
            yield (), f"must not list anything twice (got {got(value)})"

    def convert(self, value: Any) -> Any:
        return tuple(self.item.convert(item) for item in value)

    def read(self, text: str) -> Any:
        value = toml_value(text)
        if isinstance(value, list):
            return value
        return [self.item.read(part.strip()) for part in text.split(",") if part.strip()]


@attrs.frozen
class TableOf(Rule):
    """A table of any names, at least `least` of them; each value (`what`) obeys `entry`."""

    entry: Rule
    least: int = 0
    what: str = "entry"

    @property
    def wanted(self) -> str:
        return "a table" + (f" of at least {_counted(self.least, self.what)}" if self.least else "")

    def faults(self, value: Any) -> Iterator[Fault]:
        if not isinstance(value, Mapping) or len(value) < self.least:
            yield self.refusal(value)
        else:
            yield from _within(value.items(), lambda _: self.entry)

    def convert(self, value: Any) -> Any:
        return {key: self.entry.convert(part) for key, part in value.items()}

    def inner(self, _key: str) -> Rule | None:
        return self.entry


@attrs.frozen
class Table(Rule):
    """A table of named fields.

    :param required: the fields that must be there.
    :param others: the rule of every other field; None where there may be none.
    """

    fields: Mapping[str, Rule]
    required: Collection[str] = ()
    others: Rule | None = None

    wanted: ClassVar[str] = "a table"

    def faults(self, value: Any) -> Iterator[Fault]:
        if not isinstance(value, Mapping):
            yield self.refusal(value)
            return
        known = {key: part for key, part in value.items() if self.inner(key)}
        for key in value.keys() - known.keys():
            yield (str(key),), f"is no setting{did_you_mean(str(key), self.fields)}"
        for key in self.fields:
            if key in self.required and key not in value:
                yield (key,), f"is missing; it must be {self.fields[key].wanted}"
        yield from _within(known.items(), self.inner)

    def convert(self, value: Any) -> Any:
        return {key: (self.inner(key) or Anything()).convert(v) for key, v in value.items()}

    def inner(self, key: str) -> Rule | None:
        return self.fields.get(key, self.others)


def _within(parts: Iterable[tuple[Any, Any]], rule_of: Any) -> Iterator[Fault]:
    """The faults of each part, with the part's key or place before their paths."""
    for key, part in parts:
        for path, text in rule_of(key).faults(part):
            yield (key if isinstance(key, int) else str(key), *path), text


def _counted(least: int, what: str) -> str:
    return f"one {what}" if least == 1 else f"{least} {what}s"


def got(value: Any) -> str:
    """A wrong value as messages show it."""
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def key_text(path: Path) -> str:
    """``("seeds", 0, "test")`` → ``seeds[0].test``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def origin_of(path: Path, origins: Mapping[str, str]) -> str:
    """Where a key, or the nearest table around it, was written; the whole file's place is under ``""``."""
    prefixes = (key_text(path[:length]) for length in range(len(path), -1, -1))
    return next((origins[key] for key in prefixes if key in origins), "")


def said(path: Path, text: str, origins: Mapping[str, str] | None = None) -> str:
    """A fault as people read it: ``run.toml:3: `training.lr` must be …``."""
    origin = origin_of(path, origins or {})
    key = key_text(path)
    if not key.isprintable():  # anybody may have written it, and a terminal would obey it
        key = key.encode("unicode_escape").decode()
    return (f"{origin}: " if origin else "") + (f"`{key}` " if path else "it ") + text


def faults_of(rule: Rule, raw: Any, origins: Mapping[str, str] | None = None) -> list[str]:
    """Every fault of a value, each with its origin; empty where there is none.

    :param origins: dotted key → where it was set (``run.toml:12``, ``--max-steps``); ``""`` → the file as a whole.
    """
    return [said(path, text, origins) for path, text in rule.faults(raw)]


def checked(
    rule: Rule,
    raw: Any,
    origins: Mapping[str, str] | None = None,
    *,
    what: str,
    error: type[AangError] = ConfigError,
) -> Any:
    """A value in the form that the program keeps.

    :param origins: as in `faults_of`. :param what: what a message about several faults begins with.
    :raises AangError: of the class `error`, where the value breaks the rule; names every fault with its origin.
    """
    faults = faults_of(rule, raw, origins)
    if faults:
        raise error(one_message(faults, what))
    return rule.convert(raw)


def like(default: Any, least: float = -math.inf) -> Rule:
    """The rule for what may stand in for an option's default: a value of the same kind; anything for None.

    A whole number may stand for a real one, a bool for no number.

    :param least: of numbers.
    """
    if isinstance(default, bool):
        return Flag()
    if isinstance(default, int):
        return Integer(None if least == -math.inf else int(least))
    if isinstance(default, float):
        return Number(least)
    if isinstance(default, str):
        return Text(empty=True)
    if isinstance(default, (list, tuple)):
        return ListOf(Anything(), unique=False)
    return TableOf(Anything()) if isinstance(default, Mapping) else Anything()


def toml_value(text: str) -> Any:
    """A flag's text as a TOML value (``0.1``, ``true``, ``["a"]``), or as itself where it is none."""
    try:
        return toml_of(f"value = {text}")["value"]
    except ValueError:
        return text


def _unquoted(text: str) -> str:
    value = toml_value(text)
    return value if isinstance(value, str) else text


def rule_at(rule: Rule, path: Iterable[str]) -> Rule | None:
    """The rule of what stands at a path inside a table; None where there is no such setting."""
    found: Rule | None = rule
    for key in path:
        found = found.inner(key) if found else None
    return found
