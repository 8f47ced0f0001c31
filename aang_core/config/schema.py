"""What a setting may be: one small rule per kind of value, used as attrs validator and by the TOML reader.

A rule says what is wrong (`Rule.fault`), brings a value from TOML into the form that the record keeps
(`Rule.settle`), and reads the text of a command-line flag (`Rule.read`).
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from aang_core.errors import ConfigError, nearest
from aang_core.files import toml_of

_HALF = re.compile("[\ud800-\udfff]")
"""Half of a pair of characters; Python has them for names of files that are not UTF-8."""


@attrs.frozen
class Rule(ABC):
    """Base of the rules. An instance is an attrs validator."""

    @abstractmethod
    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, as ``must be … (got …)``; None where it is right."""

    def settle(self, value: Any) -> Any:
        """The value as the record keeps it, where that differs from what TOML gives."""
        return value

    def read(self, text: str) -> Any:
        """The value that a flag's text stands for; what it cannot be, `fault` will say."""
        return toml_value(text)

    def __call__(self, instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        """Validate on construction.

        :raises ConfigError: where the value breaks the rule.
        """
        fault = self.fault(value)
        if fault:
            key = attribute.name.rstrip("_")
            raise ConfigError(f"{type(instance).__name__}: `{key}` {fault}")


@attrs.frozen
class Whole(Rule):
    """A whole number of at least `least`; `word` is a text that stands for 0."""

    least: int
    word: str = ""

    def fault(self, value: Any) -> str | None:
        if type(value) is int and value >= self.least:  # a bool is no number here
            return None
        other = f", or {self.word!r}" if self.word else ""
        return f"must be a whole number of at least {self.least}{other} (got {value!r})"

    def settle(self, value: Any) -> Any:
        return 0 if self.word and value == self.word else value


@attrs.frozen
class Real(Rule):
    """A finite number: ``least <= value``, ``value <= most``; the named ends can be left out."""

    least: float = 0.0
    most: float = math.inf
    without_least: bool = False
    without_most: bool = False

    def fault(self, value: Any) -> str | None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and math.isfinite(value):
            low = value > self.least if self.without_least else value >= self.least
            high = value < self.most if self.without_most else value <= self.most
            if low and high:
                return None
        bounds = f"{'above' if self.without_least else 'of at least'} {self.least:g}"
        if math.isfinite(self.most):
            bounds += f" and {'below' if self.without_most else 'at most'} {self.most:g}"
        return f"must be a number {bounds} (got {value!r})"

    def settle(self, value: Any) -> Any:
        return float(value) if type(value) is int else value


@attrs.frozen
class Flag(Rule):
    """True or false."""

    def fault(self, value: Any) -> str | None:
        return None if isinstance(value, bool) else f"must be true or false (got {value!r})"


@attrs.frozen
class Text(Rule):
    """A text; `empty` says whether it may have no characters."""

    empty: bool = False

    def fault(self, value: Any) -> str | None:
        if isinstance(value, str) and (value or self.empty):
            # no file can be named so, and none can hold it
            if _HALF.search(value) or "\0" in value:
                return f"must be a text without null characters, all of it UTF-8 (got {value!r})"
            return None
        return f"must be a text{'' if self.empty else ' that is not empty'} (got {value!r})"

    def read(self, text: str) -> Any:
        return _unquoted(text)


@attrs.frozen
class Choice(Rule):
    """One of a few texts."""

    options: tuple[str, ...]

    def fault(self, value: Any) -> str | None:
        if isinstance(value, str) and value in self.options:
            return None
        allowed = ", ".join(repr(option) for option in self.options)
        return f"must be one of {allowed} (got {value!r}){nearest(str(value), self.options)}"

    def read(self, text: str) -> Any:
        return _unquoted(text)


@attrs.frozen
class Several(Rule):
    """A list whose items obey `item`, each at most once; at least `least` of them."""

    item: Rule
    least: int = 0

    def fault(self, value: Any) -> str | None:
        if not isinstance(value, (list, tuple)):
            return f"must be a list (got {value!r})"
        for entry in value:
            fault = self.item.fault(entry)
            if fault:
                return f"must be a list, and each of its items {fault}"
        if len(set(value)) < len(value):
            return f"must not list anything twice (got {list(value)!r})"
        if len(value) < self.least:
            return f"must list at least {self.least} (got {list(value)!r})"
        return None

    def settle(self, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def read(self, text: str) -> Any:
        value = toml_value(text)
        if isinstance(value, list):
            return value
        return [self.item.read(part.strip()) for part in text.split(",") if part.strip()]


@attrs.frozen
class Shares(Rule):
    """Nothing, or `count` parts of a whole: numbers above 0 whose sum is below 1."""

    count: int

    def fault(self, value: Any) -> str | None:
        if not isinstance(value, (list, tuple)):
            return f"must be a list (got {value!r})"
        numbers = [v for v in value if isinstance(v, (int, float)) and not isinstance(v, bool)]
        whole = len(numbers) == len(value) in (0, self.count)
        if whole and all(v > 0 for v in numbers) and sum(numbers) < 1:
            return None
        return f"must be empty, or {self.count} numbers above 0 with a sum below 1 (got {list(value)!r})"

    def settle(self, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


@attrs.frozen
class Texts(Rule):
    """A table of texts, each obeying `entry`."""

    entry: Rule = Text()

    def fault(self, value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f"must be a table of texts (got {value!r})"
        for name, text in value.items():
            fault = self.entry.fault(text)
            if fault:
                return f"must be a table of texts, and {name!r} {fault}"
        return None


@attrs.frozen
class Tables(Rule):
    """A table of tables, such as ``[primitives.NAME]``; what is inside is checked by whoever uses it."""

    def fault(self, value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f"must be a table of tables (got {value!r})"
        for name, table in value.items():
            if not isinstance(name, str) or not isinstance(table, Mapping):
                return f"must be a table of tables (got {table!r} for {name!r})"
        return None


def toml_value(text: str) -> Any:
    """A flag's text as a TOML value (``0.1``, ``true``, ``["a"]``), or as itself where it is none."""
    try:
        return toml_of(f"value = {text}")["value"]
    except ValueError:
        return text


def _unquoted(text: str) -> str:
    value = toml_value(text)
    return value if isinstance(value, str) else text


def setting(rule: Rule, default: Any) -> Any:
    """An attrs field with a rule and a default that is not changed in place."""
    return attrs.field(default=default, validator=rule, converter=rule.settle)


def rules_of(record: type) -> dict[str, Rule]:
    """TOML key → rule for the fields of a settings record that have one."""
    fields: Iterable[attrs.Attribute[Any]] = attrs.fields(record)
    return {f.name.rstrip("_"): f.validator for f in fields if isinstance(f.validator, Rule)}
