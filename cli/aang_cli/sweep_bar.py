"""The live bars of ``aang sweep`` on stderr: all trials, and one for each under way; plain lines without a terminal."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.progress import TaskID

from aang_cli.bars import Bars
from aang_core.study.sweep.pool import SweepWatcher

if TYPE_CHECKING:
    from aang_core.study.sweep.trial import Outcome, Trial


class SweepBar(Bars, SweepWatcher):
    """A `SweepWatcher` whose bars are drawn inside its block. Safe to call from any thread."""

    def __init__(self) -> None:
        super().__init__("{task.description}")
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._all = TaskID(0)
        self._total = self._done = self._failed = 0

    def on_plan(self, trials: Sequence[Trial], finished: Sequence[Trial]) -> None:
        self._total, self._done = len(trials), len(finished)
        self._all = self._bars.add_task("trials", total=len(trials), completed=self._done, state="")
        kept = f", {len(finished)} of them finished before" if finished else ""
        self.on_remark(f"{len(trials)} trials{kept}")

    def on_start(self, trial: Trial, attempt: int) -> None:
        again = "" if attempt == 1 else f", attempt {attempt}"
        with self._lock:
            self._remove(trial)
            name = f"  {trial.name}{again}"
            self._tasks[trial.name] = self._bars.add_task(name, total=None, state="preparing")
        if not self._live:
            self.on_remark(f"begins: {trial.name}{again}")

    def on_progress(
        self, trial: Trial, done: int | None, total: int | None, best: float | None
    ) -> None:
        with self._lock:
            task = self._tasks.get(trial.name)
            if task is None:
                return
            self._bars.update(task, total=total, completed=done)
            if best is not None:
                self._bars.update(task, state=f"best dev {best:.4f}")
            elif total is not None and done is None:
                self._bars.update(task, state="")

    def on_retry(self, trial: Trial, error: str) -> None:
        self.on_remark(f"tried again: {trial.name}: {error}")

    def on_end(self, outcome: Outcome) -> None:
        with self._lock:
            self._remove(outcome.trial)
            self._done += 1
            self._failed += bool(outcome.error)
            state = f"{self._failed} failed" if self._failed else ""
            self._bars.update(self._all, completed=self._done, state=state)
            count = f"{self._done}/{self._total}"
        if outcome.error:
            self.on_remark(f"{count} failed: {outcome.trial.name}: {outcome.error}")
        elif not self._live:
            self.on_remark(f"{count} finished: {outcome.trial.name}")

    def _remove(self, trial: Trial) -> None:
        task = self._tasks.pop(trial.name, None)
        if task is not None:
            self._bars.remove_task(task)
