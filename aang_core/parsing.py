"""JSON and TOML that anybody may have written: whatever is wrong with a text is a `ValueError`.

The libraries let two things pass that are no errors of theirs: nesting that is deeper than Python's stack, and whole
numbers of more digits than Python converts.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aang_core.errors import RunError


def json_of(text: str) -> Any:
    """The value of a JSON text.

    :raises ValueError: where it is none.
    """
    return _parsed(json.loads, text)


def toml_of(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    :raises ValueError: where it is none.
    """
    found: dict[str, Any] = _parsed(tomllib.loads, text)
    return found


def json_lines(path: Path) -> list[Any]:
    r"""The values of a file that a run wrote, one a line. Only ``\n`` ends a line: texts may hold U+2028.

    :raises RunError: where the file cannot be read, or a line is damaged; it is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as cause:
        raise RunError(f"cannot read {path}: {cause.strerror}; the run is damaged") from cause
    except UnicodeDecodeError as cause:
        raise RunError(f"{path} is damaged: {cause}") from cause
    found = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        try:
            found.append(json_of(line))
        except ValueError as cause:
            raise RunError(f"{path}:{number} is damaged: {cause}") from cause
    return found


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except RecursionError as cause:
        raise ValueError("it is nested too deeply") from cause
