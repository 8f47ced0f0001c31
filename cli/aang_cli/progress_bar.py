"""The live bar of ``aang run`` on stderr; plain lines at every evaluation where that is no terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import TaskID

from aang_cli.bars import Bars
from aang_cli.interruption import Interruption
from aang_core.train.callbacks import Watcher
from aang_core.train.trainer import phases

if TYPE_CHECKING:
    from aang_core.train.callbacks import Progress as State
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord


class ProgressBar(Bars, Watcher):
    """A `Watcher` whose bar is drawn inside its block.

    :param interruption: what it hears of signals; the bar says when a step is under way that should end first.
    :ivar directory: the run directory, once it is settled.
    """

    def __init__(self, interruption: Interruption | None = None) -> None:
        super().__init__("{task.fields[name]}")
        self.interruption = interruption or Interruption()
        self.directory: Path | None = None
        self._latest = ""
        self._prepared: dict[str, TaskID] = {}

    @property
    def stopping(self) -> bool:
        return self.interruption.number != 0

    def on_begin(self, directory: Path) -> None:
        self.directory = directory

    def on_preparation(self, what: str, done: int, total: int) -> None:
        if what not in self._prepared:
            self._prepared[what] = self._bars.add_task("", total=total, name=what, state="")
            if not self._live:
                self.on_remark(f"{what} …")
        task = self._prepared[what]
        self._bars.update(task, completed=done, total=total, visible=done < total)
        if done == total:
            del self._prepared[what]

    def on_seed(self, session: Session) -> None:
        total = sum(steps for _, steps in phases(session))
        self._task = self._bars.add_task("", total=total, name=f"seed {session.seed}", state="")
        self._total = total
        if not self._live:
            self.on_remark(f"seed {session.seed}: at most {total} steps")

    def on_step(self, session: Session, record: StepRecord, progress: State) -> None:
        self.interruption.held = True
        self._latest = _losses(record)
        best = f"  best dev {session.task.metric} {_best(progress)}" if progress.evaluations else ""
        self._bars.update(self._task, completed=progress.done, state=self._latest + best)

    def on_evaluation(self, session: Session, progress: State) -> None:
        if self._live:
            return
        value = progress.evaluations[-1][session.task.metric]
        self.on_remark(
            f"seed {session.seed}  step {progress.done}/{max(self._total, progress.done)}  {self._latest}  "
            f"dev {session.task.metric} {value:.4f}  best {_best(progress)}"
        )

    def on_trained(self, session: Session, progress: State) -> None:  # noqa: ARG002
        self.interruption.held = False
        if self.stopping:
            raise KeyboardInterrupt


def _best(progress: State) -> str:
    return "none yet" if progress.best_score is None else f"{progress.best_score:.4f}"


def _losses(record: StepRecord) -> str:
    """End-task loss, mean auxiliary loss by weight, and λ."""
    parts = []
    if "end-task" in record.losses:
        parts.append(f"end-task {record.losses['end-task']:.3f}")
    seen = {name: w for name, w in record.weights.items() if name in record.losses}
    total = sum(seen.values())
    if total > 0:
        mean = sum(w * record.losses[name] for name, w in seen.items()) / total
        parts.append(f"auxiliary {mean:.3f}")
    return "  ".join([*parts, f"λ {record.end_task_weight:.3f}"])
