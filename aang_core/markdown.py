"""Results as Markdown: names and messages come from files, so what they hold is shown and never obeyed."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence


def one_line(text: str) -> str:
    """A text without line ends, and without markup of HTML."""
    return html.escape(" ".join(text.split()), quote=False)


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table of one row or more, all with the same columns; those that are empty in every row are left out."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "\n".join(
        "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )
