"""Step 1: settings, the schema that checks every table, and the files they come from."""

from __future__ import annotations

from typing import Any

from aang_core._moved import forwarded

_BEFORE = {
    **dict.fromkeys(("METHODS", "Meta", "RunConfig", "SECTIONS", "Training"), "settings"),
    "Heads": "settings:HeadSettings",
}


def __getattr__(name: str) -> Any:
    """What ``aang_core.config`` held while it was one module (until 0.2)."""
    return forwarded(__name__, _BEFORE, name)
