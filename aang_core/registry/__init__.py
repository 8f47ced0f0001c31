"""Steps 3 and 4: records, hook specifications, discovery, spaces and legality."""

from __future__ import annotations

from typing import Any

from aang_core._moved import forwarded

_BEFORE = dict.fromkeys(("Registered", "Registry", "collect", "load_registry"), "registry")


def __getattr__(name: str) -> Any:
    """What ``aang_core.registry`` held while it was one module (until 0.2)."""
    return forwarded(__name__, _BEFORE, name)
