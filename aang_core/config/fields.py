"""Settings as attrs records: fields with a rule, records as tables, and what help pages and options say of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import attrs

from aang_core.config.schema import Fault, Rule, Table

_PARAMETER = re.compile(r":param ([\w, ]+): (.*?)(?=:param|\Z)", re.DOTALL)


def setting(rule: Rule, default: Any = attrs.NOTHING) -> Any:
    """An attrs field with a rule; without a default it is required."""

    def kept(value: Any) -> Any:
        return value if any(rule.faults(value)) else rule.convert(value)

    if isinstance(default, dict):
        default = attrs.Factory(dict)
    return attrs.field(default=default, validator=rule, converter=kept)


@attrs.frozen
class RecordOf(Rule):
    """A table of a record's settings, kept as that record; fields without a default are required."""

    record: type

    wanted: ClassVar[str] = "a table"

    def faults(self, value: Any) -> Iterator[Fault]:
        if not isinstance(value, self.record):
            fields: Iterable[attrs.Attribute[Any]] = attrs.fields(self.record)
            required = [f.name.rstrip("_") for f in fields if f.default is attrs.NOTHING]
            yield from Table(rules_of(self.record), required).faults(value)

    def convert(self, value: Any) -> Any:
        if isinstance(value, self.record):
            return value
        names = {f.name.rstrip("_"): f.name for f in attrs.fields(self.record)}
        return self.record(**{names[key]: part for key, part in value.items()})

    def inner(self, key: str) -> Rule | None:
        return rules_of(self.record).get(key)


def section(record: type) -> Any:
    """An attrs field that holds another record of settings: a table in TOML."""
    return setting(RecordOf(record), attrs.Factory(record))


def rules_of(record: type) -> dict[str, Rule]:
    """TOML key → rule for the fields of a settings record that have one."""
    fields: Iterable[attrs.Attribute[Any]] = attrs.fields(record)
    return {f.name.rstrip("_"): f.validator for f in fields if isinstance(f.validator, Rule)}


@attrs.frozen(kw_only=True)
class Setting:
    """One setting as help pages and command-line options show it.

    :param key: dotted, as in TOML and behind ``--set``: ``training.lr``.
    :param field: the name of the record's field, as Python spells it: ``with_``.
    :param rule: reads a flag's text (`Rule.read`) and says what is allowed (`Rule.wanted`).
    :param default: as the record keeps it; `attrs.NOTHING` where the setting is required.
    :param help: what the record's docstring says of it, on one line, a full sentence.
    """

    key: str
    field: str
    rule: Rule
    default: Any
    help: str


def described(record: type, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a record, those of its sections included, in the order of the fields.

    A command makes its options from them: the name from `Setting.key`, the type from `Setting.rule`, the help from the
    record's docstring. ``{s.key: s for s in described(RunConfig)}["training.lr"]`` is one.
    """
    text = inspect.getdoc(record) or ""
    helps: dict[str, str] = {}
    for names, what in _PARAMETER.findall(text):  # names that share an entry share its text
        line = " ".join(what.split()).replace("``", "`")
        helps |= {name.strip(): line[:1].upper() + line[1:] for name in names.split(",")}
    for field in attrs.fields(record):
        key, rule = field.name.rstrip("_"), field.validator
        if isinstance(rule, RecordOf):
            yield from described(rule.record, f"{prefix}{key}.")
        elif isinstance(rule, Rule):
            default = field.default
            if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
                default = default.factory()
            yield Setting(
                key=prefix + key,
                field=field.name,
                rule=rule,
                default=default,
                help=helps.get(field.name, ""),
            )
