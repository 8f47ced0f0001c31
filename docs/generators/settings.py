"""The reference page of the settings, out of the records that check them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator

import attrs

from aang_core.config.schema import rules_of
from aang_core.config.settings import SECTIONS, RunConfig

PARAMETER = re.compile(r":param ([\w, ]+): (.*?)(?=\n:param|\Z)", re.DOTALL)


def page() -> str:
    """Every key of ``config.toml``: its default, what it may be, what it does."""
    lines = [
        "# Settings",
        "",
        "Generated from the records in `aang_core.config.settings`. A run reads them from `--config FILE` and from",
        "`--set KEY=VALUE`, where a key is dotted (`training.lr`), and writes all of them into its own",
        "`config.toml`. In Python they are the keywords of `aang_core.run`, with a mapping for each table.",
        "[Choices](../choices.md) says why the defaults are what they are.",
        "",
        "## At the top",
        "",
        *_table(RunConfig, ""),
    ]
    for table, record in SECTIONS.items():
        lines += ["", f"## [{table}] {{: #{table} }}", "", *_table(record, f"{table}.")]
    return "\n".join(lines) + "\n"


def _table(record: type, prefix: str) -> Iterator[str]:
    said, rules = _documented(record), rules_of(record)
    yield "| key | default | may be | |"
    yield "|---|---|---|---|"
    for field in attrs.fields(record):
        key = field.name.rstrip("_")
        if key in SECTIONS:
            continue
        default = getattr(record(), field.name)
        allowed = _allowed(rules[key]) if key in rules else "a table"
        cells = (f"`{prefix}{key}`", f"`{_toml(default)}`", allowed, said.get(field.name, ""))
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _documented(record: type) -> dict[str, str]:
    """Parameter → what the record's docstring says of it; names that share an entry share its text."""
    text = inspect.getdoc(record) or ""
    found = {}
    for names, what in PARAMETER.findall(text):
        said = " ".join(what.split()).replace("``", "`")
        found |= {name.strip(): said[:1].upper() + said[1:] for name in names.split(",")}
    return found


def _allowed(rule: object) -> str:
    """What the rule's own message asks for."""
    message = rule.fault(object()) or ""
    return message.removeprefix("must be ").partition(" (got")[0].partition("; did you")[0]


def _toml(value: object) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=dict)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
