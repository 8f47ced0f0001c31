"""The reference page of the hooks, from the hook specifications and the records that they return."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator

import attrs

from aang_core.registry import hookspecs
from aang_core.registry.discovery import HOOKS


def page() -> str:
    """Every hook: what it returns, and the fields of that record."""
    lines = [
        "# Hooks",
        "",
        "Generated from `aang_core.registry.hookspecs`. A plugin's module defines those that it needs, each marked",
        "with `hookimpl`; each takes nothing and returns a list of records. [Plugins](../plugins.md) says",
        "what a record's factory makes, and the [tutorial](../tutorial-plugin.md) builds a whole package.",
    ]
    for name in sorted(HOOKS, key=_place):
        lines += ["", *_entry(name)]
    return "\n".join(lines) + "\n"


def _place(name: str) -> int:
    return inspect.getsourcelines(getattr(hookspecs, name))[1]


def _entry(name: str) -> Iterator[str]:
    hook = getattr(hookspecs, name)
    (record,) = typing.get_args(typing.get_type_hints(hook)["return"])
    doc = inspect.getdoc(record) or ""
    yield f"## {name} {{: #{name} }}"
    yield ""
    yield f"{inspect.getdoc(hook)} Returns `{record.__name__}` records. {_summary(doc)}"
    yield ""
    yield "| field | default |"
    yield "|---|---|"
    for field in attrs.fields(record):
        yield f"| `{field.name}` | {_default(field)} |"


def _summary(doc: str) -> str:
    return " ".join(doc.partition("\n\n")[0].split()).replace("``", "`")


def _default(field: attrs.Attribute) -> str:
    if field.default is attrs.NOTHING:
        return "must be given"
    if isinstance(field.default, attrs.Factory):
        return "empty"
    if isinstance(field.default, frozenset | tuple | str) and not field.default:
        return "empty"
    return f"`{field.default}`"
