"""The reference page of the settings, from the records that check them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from aang_core.config.fields import described
from aang_core.config.settings import SECTIONS, RunConfig


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
    yield "| key | default | may be | |"
    yield "|---|---|---|---|"
    for setting in described(record, prefix):
        if prefix or setting.key.partition(".")[0] not in SECTIONS:
            cells = (f"`{setting.key}`", f"`{_toml(setting.default)}`", setting.rule.wanted)
            yield "| " + " | ".join(_cell(cell) for cell in (*cells, setting.help)) + " |"


def _toml(value: object) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=dict)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
