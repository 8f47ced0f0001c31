"""The live bar of ``aang run`` on stderr; plain lines at every evaluation where that is no terminal."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from aang_core.fitting import phases
from aang_core.progress import Watcher

if TYPE_CHECKING:
    from aang_core.progress import Progress as State
    from aang_core.session import Session
    from aang_core.trainer import StepRecord


class ProgressBar(Watcher):
    """A `Watcher` and a context manager; the bar is drawn inside the block.

    Ctrl-C lets the step under way end and is raised behind it, where nothing can swallow it (Python drops an exception
    that a signal raises inside a destructor or a callback); before the first step, or a second time, it
    is raised at once.

    :ivar directory: the run directory, once it is settled.
    """

    def __init__(self, seeds: int) -> None:
        self.seeds = seeds
        self._stepping = self._interrupted = False
        self._former: Any = None
        self.directory: Path | None = None
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.fields[name]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._latest = ""
        self._prepared: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBar:
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGINT, self._interrupt)
        self._bar.start()
        return self

    def _interrupt(self, *_: object) -> None:
        if not self._stepping or self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _stop_if_interrupted(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)

    def on_begin(self, directory: Path) -> None:
        self.directory = directory

    def on_preparation(self, what: str, done: int, total: int) -> None:
        if what not in self._prepared:
            self._prepared[what] = self._bar.add_task("", total=total, name=what, state="")
            if not self._live:
                self._say(f"{what} …")
        task = self._prepared[what]
        self._bar.update(task, completed=done, total=total, visible=done < total)
        if done == total:
            del self._prepared[what]

    def on_seed(self, session: Session) -> None:
        self._stop_if_interrupted()
        self._stepping = False
        total = sum(steps for _, steps in phases(session))
        self._task = self._bar.add_task("", total=total, name=f"seed {session.seed}", state="")
        self._total = total
        if not self._live:
            self._say(f"seed {session.seed}: at most {total} steps")

    def on_step(self, session: Session, record: StepRecord, progress: State) -> None:
        self._stepping = True
        self._stop_if_interrupted()
        self._latest = _losses(record)
        best = f"  best dev {session.task.metric} {_best(progress)}" if progress.evaluations else ""
        self._bar.update(self._task, completed=progress.done, state=self._latest + best)

    def on_evaluation(self, session: Session, progress: State) -> None:
        self._stop_if_interrupted()
        if self._live:
            return
        value = progress.evaluations[-1][session.task.metric]
        self._say(
            f"seed {session.seed}  step {progress.done}/{max(self._total, progress.done)}  {self._latest}  "
            f"dev {session.task.metric} {value:.4f}  best {_best(progress)}"
        )

    def on_remark(self, remark: str) -> None:
        self._say(remark)

    def _say(self, text: str) -> None:
        """A line above the bar, as it is: names may hold what the console would take for markup."""
        if self._live:
            self._console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _best(progress: State) -> str:
    return "none yet" if progress.best_score is None else f"{progress.best_score:.4f}"


def _losses(record: StepRecord) -> str:
    """End-task loss, mean auxiliary loss by weight, and λ."""
    parts = []
    if "end-task" in record.losses:
        parts.append(f"end-task {record.losses['end-task']:.3f}")
    total = sum(record.weights.values())
    if total > 0:
        mean = sum(w * record.losses[name] for name, w in record.weights.items()) / total
        parts.append(f"auxiliary {mean:.3f}")
    return "  ".join([*parts, f"λ {record.end_task_weight:.3f}"])
