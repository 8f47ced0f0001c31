"""Rows for people or for programs. Results go to stdout, remarks to stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from aang_core.errors import RunError

_PIPE_WIDTH = 200
"""Columns of a table that goes into a file or pipe, where no terminal says how wide it is."""

LOUDNESS = "aang.loudness"
"""Where click's context keeps what `options.loudness` heard: ``quiet``, ``verbose``, or nothing."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def rows(
    found: Sequence[Mapping[str, Any]], *, columns: Sequence[str], title: str, as_json: bool
) -> None:
    """Print rows: all of their keys as JSON, or the chosen columns as a table."""
    if as_json:
        document(found)
    else:
        table(found, columns=columns, title=title)


def document(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def table(found: Sequence[Mapping[str, Any]], *, columns: Sequence[str], title: str) -> None:
    """Print a table; lists are joined by commas. Columns that are empty in every row are left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [name for name in columns if not found or any(_cell(row[name]) for row in found)]
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in shown:
        grid.add_column(name.replace("_", " "), overflow="fold")
    for row in found:
        grid.add_row(*(Text(_cell(row[name])) for name in shown))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(file=sys.stdout, width=width).print(grid)


def written(path: Path, text: str) -> None:
    """Write a file that the user has named.

    :raises RunError: where it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as cause:
        raise RunError(
            f"cannot write {path}: {cause.strerror}; give a file in a folder that you may write to"
        ) from cause


def loudness() -> str:
    """``quiet``, ``verbose``, or an empty text where the command was given neither flag. Ask in the first thread."""
    context = click.get_current_context(silent=True)
    return str(context.meta.get(LOUDNESS, "")) if context else ""


def remark(text: str) -> None:
    """Tell people something beside the result; ``--quiet`` leaves it out."""
    if loudness() != "quiet":
        click.echo(visible(text), err=True)


def visible(text: str) -> str:
    """A text that only says something: what would steer a terminal is written out (``\\x1b``)."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return visible(", ".join(map(str, value)))
    return "" if value is None else visible(str(value))
