"""Old places of modules. They keep working until 0.2, because plugins may name them.

For example ``aang_core.rows`` gives ``aang_core.batch.rows``, with a `DeprecationWarning`: in imports and in the dotted
addresses of records.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

MOVED: Mapping[str, str] = {
    "assembly": "train.resolve",
    "audit": "data.audit",
    "auxiliary": "data.auxiliary",
    "batch.purity": "check.purity",
    "batching": "batch.packing",
    "binding": "batch.binding",
    "blame": "batch.checks",
    "checkpoint": "train.checkpoint",
    "compare": "analysis.compare",
    "config_file": "config.file",
    "config_rules": "config.schema",
    "contracts.expect": "check.contracts.expect",
    "contracts.output": "check.contracts.output",
    "contracts.representation": "check.contracts.representation",
    "contracts.source": "check.contracts.source",
    "contracts.tiny_data": "check.contracts.tiny_data",
    "contracts.tiny_encoder": "check.contracts.tiny_encoder",
    "contracts.transform": "check.contracts.transform",
    "cores": "machine",
    "deduplication": "data.duplicates",
    "degenerate": "check.sanity",
    "detectability": "analysis.detectability",
    "dev_gradient": "method.gradient.dev_gradient",
    "discovery": "registry.discovery",
    "disk": "check.dry_run",
    "durable": "files",
    "end_task": "method.end_task",
    "engine": "method.gradient.engine",
    "evaluation": "train.evaluation",
    "exhaustion": "rundir.failures",
    "export": "train.finish.export",
    "finished_runs": "rundir.finished",
    "first_batch": "check.first_batch",
    "fitting": "train.trainer",
    "fused": "method.gradient.metagrad",
    "guard": "train.finish.guard",
    "head_fitting": "train.head_fitting",
    "heads": "method.heads",
    "history": "analysis.history",
    "hookspecs": "registry.hookspecs",
    "inspection": "check.walk",
    "job": "study.run",
    "loggers": "train.loggers",
    "metagrad": "method.gradient.metagrad",
    "method.dev_gradient": "method.gradient.dev_gradient",
    "method.engine": "method.gradient.engine",
    "method.folds": "method.cross_fitting",
    "method.metagrad": "method.gradient.metagrad",
    "method.proportions": "method.weights.proportions",
    "method.rules": "method.weights.rules",
    "method.tracked_layers": "method.gradient.tracked_layers",
    "method.weighting": "method.weights.weighting",
    "metrics": "data.metrics",
    "micro_batches": "method.gradient.engine",
    "objectives": "registry.legality",
    "page.changed_predictions": "analysis.examples",
    "page.figures": "analysis.page.figures",
    "page.plots": "analysis.page.plots",
    "page.report_page": "analysis.page.page",
    "page.score_figures": "analysis.page.figures",
    "page.story": "analysis.page.story",
    "page.theory_estimates": "analysis.page.theory_estimates",
    "parsing": "files",
    "plan_summary": "check.dry_run",
    "planning": "method.step_plan",
    "prediction": "train.finish.export",
    "primitives": "registry.records",
    "progress": "train.callbacks",
    "proportions": "method.weights.proportions",
    "protocols": "batch.protocols",
    "purity": "check.purity",
    "recipe": "rundir.recipe",
    "report": "rundir.report",
    "report_shape": "rundir.report",
    "resuming": "train.checkpoint",
    "row_shares": "batch.row_shares",
    "rows": "batch.rows",
    "run_directory": "rundir.directory",
    "schedule": "train.optimizer",
    "seed_pool": "study.seeds",
    "seed_run": "study.seed",
    "selection.checks": "selection.pools",
    "selection.files": "data.auxiliary",
    "session": "train.session",
    "space": "registry.spaces",
    "statistics": "analysis.statistics",
    "stream": "batch.stream",
    "study.experiment": "study.selected.experiment",
    "study.experiment_spec": "study.selected.experiment_spec",
    "study.pool": "study.trials.pool",
    "study.ray_pool": "study.trials.ray_pool",
    "study.selections": "study.selected.selections",
    "study.sweep": "study.sweeps.sweep",
    "study.sweep_file": "study.sweeps.sweep_file",
    "study.trial": "study.trials.trial",
    "submission": "analysis.submission",
    "sweep.draws": "study.sweeps.sweep_file",
    "sweep.experiments": "study.sweeps.sweep_file",
    "sweep.job": "study.sweeps.sweep",
    "sweep.plan": "study.sweeps.sweep",
    "sweep.pool": "study.trials.pool",
    "sweep.ray_pool": "study.trials.ray_pool",
    "sweep.results": "study.results",
    "sweep.trial": "study.trials.trial",
    "task": "data.task",
    "task_draws": "data.splits",
    "task_files": "data.readers",
    "task_labels": "data.labels",
    "task_sources": "data.spec",
    "task_spec": "data.spec",
    "task_splits": "data.splits",
    "theory": "analysis.theory",
    "tracked_layers": "method.gradient.tracked_layers",
    "train.dry_run": "check.dry_run",
    "train.export": "train.finish.export",
    "train.final": "train.finish.final",
    "train.guard": "train.finish.guard",
    "trainer": "train.step",
    "weighting": "method.weights.weighting",
}
"""Old name → new name, both under ``aang_core``."""


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under its old name; what is loaded is the module at its new place."""

    def __init__(self) -> None:
        self.moved: dict[str, str] = {}
        self._own: dict[str, importlib.machinery.ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname in self.moved:
            return importlib.machinery.ModuleSpec(fullname, self)
        if any(old.startswith(f"{fullname}.") for old in self.moved):
            # The folder that moved modules stood in is gone; it is imported before them.
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        new = self.moved.get(spec.name)
        if new is None:
            return None
        warnings.warn(
            f"{spec.name} is now {new}; the old name goes with 0.2",
            DeprecationWarning,
            stacklevel=2,
        )
        module = importlib.import_module(new)
        self._own[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back the spec of its own place: it has been executed there."""
        old = module.__spec__
        if old is not None and old.name in self._own:
            module.__spec__ = self._own[old.name]


def forwarded(package: str, names: Mapping[str, str], name: str) -> Any:
    """A name that stood in the module which is now the folder `package`.

    :param names: name → the module of the folder that holds it, with ``:NAME`` where it has another name there.
    :raises AttributeError: where it never stood there.
    """
    if name not in names:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, new = names[name].partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), new or name)


def install(package: str = "aang_core", moved: Mapping[str, str] = MOVED) -> None:
    """Let the old names of a package be found, after everything else.

    :param moved: old name under `package` → new name, under it too or beginning with ``aang_core.``.
    """
    finders = [finder for finder in sys.meta_path if isinstance(finder, _MovedModules)]
    if not finders:
        finders = [_MovedModules()]
        sys.meta_path.append(finders[0])
    for old, new in moved.items():
        inside = not new.startswith("aang_core.")
        finders[0].moved[f"{package}.{old}"] = f"{package}.{new}" if inside else new
