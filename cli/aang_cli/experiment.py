"""``aang select --experiment``: a whole study of selected data, from its file to its tables."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aang_cli import render
from aang_cli.progress import Interruption, ProgressBar
from aang_core.registry.registry import Registry
from aang_core.study.pool import StudyCallback
from aang_core.study.results import arm_cells
from aang_core.study.selected.experiment import run_experiment
from aang_core.study.trial import Trial


class ExperimentBar(ProgressBar, StudyCallback):
    """The bars of the run under way, under one for the whole experiment."""

    def on_plan(self, trials: Sequence[Trial], finished: Sequence[Trial]) -> None:
        self._numbers = {trial.directory: number for number, trial in enumerate(trials)}
        total, done = len(trials), len(finished)
        self._bars.add_task("", total=total, completed=done, name="runs", state="")

    def on_start(self, trial: Trial, attempt: int) -> None:  # noqa: ARG002
        for task in self._bars.task_ids[1:]:  # those of the run before
            self._bars.remove_task(task)
        number = self._numbers[trial.directory]
        self._bars.update(self._bars.task_ids[0], completed=number, state=trial.name)
        if not self._live:
            self.on_remark(f"run {number + 1}/{len(self._numbers)}: {trial.name}")


def carry_out(spec: Path, out: Path, resume: bool, as_json: bool, registry: Registry) -> None:
    """Run an experiment and print its results."""
    again = shlex.join(["aang", "select", "--experiment", str(spec), "--out", str(out), "--resume"])
    goodbye = f"interrupted; go on with\n  {again}"
    interruption = Interruption()
    bar = ExperimentBar(interruption)
    with interruption.ending(lambda _: goodbye), bar:
        results = run_experiment(spec, out, registry, resume, bar)
    if as_json:
        render.document(results)
    else:
        _show(results)
        render.remark(f"everything is in {out / 'results.md'} and results.json")


def _show(results: Mapping[str, Any]) -> None:
    for name in results["targets"]:
        rows = [row for row in results["rows"] if row["target"] == name]
        cells = [arm_cells(row) for row in rows]
        render.table(cells, columns=list(cells[0]), title=f"{name}, {rows[0]['metric']}")
    for remark in results["remarks"]:
        render.remark(f"note: {remark}")
