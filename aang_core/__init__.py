"""aang: auxiliary training objectives, composed by plugins and weighted by meta-gradients.

The names below are public. Each is imported when it is first used, so plugin records and commands that only list
things do not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aang_core import _moved

if TYPE_CHECKING:
    from aang_core.batch.protocols import Binding as Binding
    from aang_core.batch.rows import Hidden as Hidden
    from aang_core.batch.rows import Layout as Layout
    from aang_core.batch.rows import Origin as Origin
    from aang_core.batch.rows import Packed as Packed
    from aang_core.batch.rows import Row as Row
    from aang_core.batch.rows import Targets as Targets
    from aang_core.batch.stream import FusedBatch as FusedBatch
    from aang_core.config.settings import RunConfig as RunConfig
    from aang_core.data.task import Task as Task
    from aang_core.errors import AangError as AangError
    from aang_core.method.gradient.metagrad import looped as looped
    from aang_core.method.weights.weighting import WeightState as WeightState
    from aang_core.method.weights.weighting import observe as observe
    from aang_core.method.weights.weighting import updated as updated
    from aang_core.registry.hookspecs import hookimpl as hookimpl
    from aang_core.registry.legality import Objective as Objective
    from aang_core.registry.legality import enumerate_objectives as enumerate_objectives
    from aang_core.registry.legality import legal_objectives as legal_objectives
    from aang_core.registry.records import BackboneKind as BackboneKind
    from aang_core.registry.records import Block as Block
    from aang_core.registry.records import CallbackKind as CallbackKind
    from aang_core.registry.records import DataSource as DataSource
    from aang_core.registry.records import Logger as Logger
    from aang_core.registry.records import NamedObjective as NamedObjective
    from aang_core.registry.records import Output as Output
    from aang_core.registry.records import Representation as Representation
    from aang_core.registry.records import Selector as Selector
    from aang_core.registry.records import Space as Space
    from aang_core.registry.records import TaskKind as TaskKind
    from aang_core.registry.records import Transform as Transform
    from aang_core.registry.records import Weighting as Weighting
    from aang_core.registry.registry import load_registry as load_registry
    from aang_core.registry.spaces import resolve_space as resolve_space
    from aang_core.rundir.report import RunReport as RunReport
    from aang_core.selection.job import select as select
    from aang_core.study.estimator import TextClassifier as TextClassifier
    from aang_core.study.run import run as run
    from aang_core.train.callbacks import Callback as Callback
    from aang_core.train.callbacks import Watcher as Watcher

__version__ = "0.1.0.dev0"

_HOMES = {
    "batch.protocols": ("Binding",),
    "batch.rows": ("Hidden", "Layout", "Origin", "Packed", "Row", "Targets"),
    "batch.stream": ("FusedBatch",),
    "config.settings": ("RunConfig",),
    "data.task": ("Task",),
    "errors": ("AangError",),
    "method.gradient.metagrad": ("looped",),
    "method.weights.weighting": ("WeightState", "observe", "updated"),
    "registry.hookspecs": ("hookimpl",),
    "registry.legality": ("Objective", "enumerate_objectives", "legal_objectives"),
    "registry.records": (
        *(
            "BackboneKind",
            "Block",
            "CallbackKind",
            "DataSource",
            "Logger",
            "NamedObjective",
            "Output",
        ),
        *("Representation", "Selector", "Space", "TaskKind", "Transform", "Weighting"),
    ),
    "registry.registry": ("load_registry",),
    "registry.spaces": ("resolve_space",),
    "rundir.report": ("RunReport",),
    "selection.job": ("select",),
    "study.estimator": ("TextClassifier",),
    "study.run": ("run",),
    "train.callbacks": ("Callback", "Watcher"),
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


_moved.install()
