"""``aang select --experiment``: a whole study of selected data, from its file to its tables."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aang_cli import render
from aang_cli.progress import Interruption, ProgressBar
from aang_core.registry.registry import Registry
from aang_core.study.experiment.job import Overseer, run_experiment
from aang_core.study.experiment.tables import score_cells


class ExperimentBar(ProgressBar, Overseer):
    """The bars of the run under way, under one for the whole experiment."""

    def on_part(self, number: int, total: int, what: str) -> None:
        for task in self._bars.task_ids[1:]:  # those of the run before
            self._bars.remove_task(task)
        if not self._bars.task_ids:
            self._bars.add_task("", total=total, name="runs", state="")
        self._bars.update(self._bars.task_ids[0], completed=number - 1, state=what)
        if not self._live:
            self.on_remark(f"run {number}/{total}: {what}")


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
        cells = [score_cells(row) for row in rows]
        render.table(cells, columns=list(cells[0]), title=f"{name}, {rows[0]['metric']}")
    for remark in results["remarks"]:
        render.remark(f"note: {remark}")
