"""Results as text and Markdown. Names and messages come from files, so they are escaped and never act as markup."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any


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


def mean_and_std(found: Mapping[str, Any] | None, digits: int = 4, scale: float = 1.0) -> str:
    """``0.8123 ± 0.0102`` of ``mean`` and ``std``; without ``std`` the mean alone; empty where nothing was found.

    :param scale: 100 for per cent.
    """
    if not found or found["mean"] is None:
        return ""
    deviation = "" if found["std"] is None else f" ± {scale * found['std']:.{digits}f}"
    return f"{scale * found['mean']:.{digits}f}{deviation}"


def interval_of(found: Sequence[float] | None, digits: int = 4, scale: float = 1.0) -> str:
    """``-0.0120 to +0.0310``; empty without an interval. `scale` as in `mean_and_std`."""
    return " to ".join(f"{scale * end:+.{digits}f}" for end in found or ())


def p_value_of(found: float | None) -> str:
    """Three digits; empty where no test was possible."""
    if found is None:
        return ""
    return f"{found:.3f}" if found >= 0.001 else "<0.001"
