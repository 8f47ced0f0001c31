"""aang: auxiliary training objectives, composed by plugins and weighted by meta-gradients.

The names below are the public ones. Each is imported when it is first used, so that a plugin's records, and commands
that only list things, load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aang_core.config import RunConfig as RunConfig
    from aang_core.errors import AangError as AangError
    from aang_core.hookspecs import hookimpl as hookimpl
    from aang_core.job import run as run
    from aang_core.metagrad import looped as looped
    from aang_core.objectives import Objective as Objective
    from aang_core.objectives import enumerate_objectives as enumerate_objectives
    from aang_core.objectives import legal_objectives as legal_objectives
    from aang_core.primitives import BackboneKind as BackboneKind
    from aang_core.primitives import Block as Block
    from aang_core.primitives import DataSource as DataSource
    from aang_core.primitives import Logger as Logger
    from aang_core.primitives import NamedObjective as NamedObjective
    from aang_core.primitives import Output as Output
    from aang_core.primitives import Representation as Representation
    from aang_core.primitives import Selector as Selector
    from aang_core.primitives import Space as Space
    from aang_core.primitives import TaskKind as TaskKind
    from aang_core.primitives import Transform as Transform
    from aang_core.progress import Watcher as Watcher
    from aang_core.protocols import Binding as Binding
    from aang_core.registry import load_registry as load_registry
    from aang_core.report import RunReport as RunReport
    from aang_core.rows import Hidden as Hidden
    from aang_core.rows import Layout as Layout
    from aang_core.rows import Origin as Origin
    from aang_core.rows import Packed as Packed
    from aang_core.rows import Row as Row
    from aang_core.rows import Targets as Targets
    from aang_core.selection.job import select as select
    from aang_core.space import resolve_space as resolve_space
    from aang_core.stream import FusedBatch as FusedBatch
    from aang_core.task import Task as Task
    from aang_core.weighting import WeightState as WeightState
    from aang_core.weighting import observe as observe
    from aang_core.weighting import updated as updated

__version__ = "0.1.0.dev0"

_HOMES = {
    "config": ("RunConfig",),
    "errors": ("AangError",),
    "hookspecs": ("hookimpl",),
    "job": ("run",),
    "metagrad": ("looped",),
    "objectives": ("Objective", "enumerate_objectives", "legal_objectives"),
    "primitives": (
        *("BackboneKind", "Block", "DataSource", "Logger", "NamedObjective", "Output"),
        *("Representation", "Selector", "Space", "TaskKind", "Transform"),
    ),
    "protocols": ("Binding",),
    "progress": ("Watcher",),
    "registry": ("load_registry",),
    "report": ("RunReport",),
    "rows": ("Hidden", "Layout", "Origin", "Packed", "Row", "Targets"),
    "selection.job": ("select",),
    "space": ("resolve_space",),
    "stream": ("FusedBatch",),
    "task": ("Task",),
    "weighting": ("WeightState", "observe", "updated"),
}
"""Public names by the module that holds them; the imports above say the same to type checkers."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
