"""What all tables of bad input share: a row, and files that spoil a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Prepare = Callable[[Path], Any]
Row = tuple[Prepare, list[str], str]
"""Makes files in a folder; the command line, run in that folder; a piece of the message."""

DEEP = "[" * 20_000
DIGITS = "9" * 5_000


def text(name: str, content: str | bytes) -> Prepare:
    """One file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)
