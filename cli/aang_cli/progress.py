"""Progress of ``aang run``, ``select`` and ``sweep``: live bars on stderr, Ctrl-C and SIGTERM."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from aang_cli import render
from aang_cli.render import visible
from aang_core.study.trials.pool import StudyCallback
from aang_core.train.callbacks import Callback, Stopped
from aang_core.train.trainer import phases

if TYPE_CHECKING:
    from aang_core.config.settings import RunConfig
    from aang_core.study.trials.trial import Outcome, Trial
    from aang_core.train.callbacks import Progress as State
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Handles the signals inside its block.

    While `held`, a first signal is only remembered, in `number`, and whoever trains looks there after every step: an
    exception that a signal raises inside a destructor or a callback would be dropped by Python, and a step that is cut
    in two has no checkpoint. Otherwise, and at a second signal, `KeyboardInterrupt` is raised at once.

    :ivar number: of the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self.held = False
        self._former: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.number or signal.SIGINT)

    @contextmanager
    def ending(self, goodbye: Callable[[BaseException], str]) -> Iterator[None]:
        """Where a signal ends the block, the program exits with `exit_code`.

        :param goodbye: what is said last, given what the signal raised.
        """
        try:
            with self:
                yield
        except (KeyboardInterrupt, Stopped) as cause:
            click.echo(goodbye(cause), err=True)
            raise click.exceptions.Exit(self.exit_code) from None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # others may set no handler
            self._former = {each: signal.signal(each, self._arrived) for each in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, former in self._former.items():
            signal.signal(each, former)

    def _arrived(self, number: int, _: FrameType | None) -> None:
        again = self.number != 0
        self.number = number
        if again or not self.held:
            raise KeyboardInterrupt


_OF_SEED = re.compile(r"^(seed \d+: )?(\d+(?= of \d+ (examples|objectives)))?")
"""What one seed's remark may differ in from another's and yet say the same: whose it is, and how many of how many."""


class _TimeLeft(ProgressColumn):
    """The time left from the first step on: the mean of all steps of this bar, where rich waits for a few of them."""

    def render(self, task: Task) -> Text:
        return Text(time_left(task), style="progress.remaining")


def time_left(task: Task) -> str:
    """``40 s left``, ``12 min left``, ``3 h 05 min left``; empty before the first step and after the last.

    A task's field ``began`` is what was done before this process, as in a run that goes on.
    """
    done = task.completed - task.fields.get("began", 0)
    if not task.remaining or done <= 0 or task.elapsed is None:
        return ""
    seconds = task.elapsed / done * task.remaining
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min left"
    return f"{minutes // 60} h {minutes % 60:02d} min left"


class Bars:
    """A context manager: bars on stderr, drawn inside the block; none where that is no terminal.

    Texts are shown as they are: names may hold what a console would take for markup or commands.

    :param name: what stands before a bar, in the terms of rich's ``TextColumn``; a task's field ``state`` stands behind
        it.
    """

    def __init__(self, name: str) -> None:
        self._console = Console(stderr=True)
        self._loudness = render.loudness()
        self._live = self._console.is_terminal and self._loudness != "quiet"
        self._said: set[str] = set()
        self._bars = Progress(
            TextColumn(name, markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            _TimeLeft(),
            console=self._console,
            disable=not self._live,
        )

    def __enter__(self) -> None:
        self._bars.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def on_remark(self, remark: str) -> None:
        """A line above the bars, but for what another seed has said already: the report has it by seed."""
        said = _OF_SEED.sub("", remark)
        again = said in self._said
        self._said.add(said)
        if self._loudness == "quiet" or (again and self._loudness != "verbose"):
            return
        self._line(remark)

    def _line(self, remark: str) -> None:
        if self._loudness == "quiet":
            return
        if self._live:
            self._console.print(visible(remark), markup=False, highlight=False)
        else:
            print(visible(remark), file=sys.stderr, flush=True)


class PreparationBar(Bars, Callback):
    """A `Callback` with bars for what is prepared, such as the steps of seeds beside each other, inside its block.

    :param interruption: what it hears of signals; the bar says when a step is under way that should end first.
    :ivar first, directory: the run directory, once it is known; of several the first's and the latest's.
    """

    def __init__(self, interruption: Interruption | None = None) -> None:
        super().__init__("{task.fields[name]}")
        self.interruption = interruption or Interruption()
        self.directory: Path | None = None
        self.first: Path | None = None
        self._prepared: dict[str, TaskID] = {}

    @property
    def stopping(self) -> bool:
        return self.interruption.number != 0

    def on_begin(self, directory: Path) -> None:
        self.directory = directory
        self.first = self.first or directory

    def on_preparation(self, what: str, done: int, total: int) -> None:
        if what not in self._prepared:
            self._prepared[what] = self._bars.add_task("", total=total, name=what, state="")
            if not self._live:
                self._line(f"{what} …")
        task = self._prepared[what]
        self._bars.update(task, completed=done, total=total, visible=done < total)
        if done == total:
            del self._prepared[what]


class ProgressBar(PreparationBar):
    """With a bar for the steps of the present seed."""

    _latest = ""

    def on_seed(self, session: Session) -> None:
        total = sum(steps for _, steps in phases(session))
        self._task = self._bars.add_task("", total=total, name=f"seed {session.seed}", state="")
        self._total, self._begun = total, False
        if not self._live:
            self._line(f"seed {session.seed}: at most {total} steps")

    def on_step(self, session: Session, record: StepRecord, progress: State) -> None:
        self.interruption.held = True
        self._latest = _losses(record)
        best = f"  best dev {session.task.metric} {_best(progress)}" if progress.evaluations else ""
        if not self._begun:  # steps of an earlier process took none of this one's time
            self._begun = True
            self._bars.update(self._task, began=progress.done - 1)
        self._bars.update(self._task, completed=progress.done, state=self._latest + best)

    def on_evaluation(self, session: Session, progress: State) -> None:
        if self._live:
            return
        value = progress.evaluations[-1][session.task.metric]
        (task,) = [each for each in self._bars.tasks if each.id == self._task]
        left = time_left(task)
        self._line(
            f"seed {session.seed}  step {progress.done}/{max(self._total, progress.done)}  {self._latest}  "
            f"dev {session.task.metric} {value:.4f}  best {_best(progress)}"
            + (f"  {left}" if left else "")
        )

    def on_trained(self, session: Session, progress: State) -> None:  # noqa: ARG002
        self.interruption.held = False
        if self.stopping:
            raise KeyboardInterrupt


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


def bar_for(jobs: int, config: RunConfig, interruption: Interruption) -> PreparationBar:
    """The bar of a run, or of runs, of one configuration."""
    beside = jobs > 1 and len(config.seeds) > 1
    return PreparationBar(interruption) if beside else ProgressBar(interruption)


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


class SweepBar(Bars, StudyCallback):
    """A `StudyCallback` whose bars are drawn inside its block. Safe to call from any thread."""

    def __init__(self) -> None:
        super().__init__("{task.description}")
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._all = TaskID(0)
        self._total = self._done = self._failed = 0

    def on_plan(self, trials: Sequence[Trial], finished: Sequence[Trial]) -> None:
        self._total, self._done = len(trials), len(finished)
        self._all = self._bars.add_task(
            "trials", total=len(trials), completed=self._done, state="", began=self._done
        )
        kept = f", {len(finished)} of them finished before" if finished else ""
        self._line(f"{len(trials)} trials{kept}")

    def on_start(self, trial: Trial, attempt: int) -> None:
        again = "" if attempt == 1 else f", attempt {attempt}"
        with self._lock:
            self._remove(trial)
            name = f"  {trial.name}{again}"
            self._tasks[trial.name] = self._bars.add_task(name, total=None, state="preparing")
        if not self._live:
            self._line(f"begins: {trial.name}{again}")

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
        self._line(f"tried again: {trial.name}: {error}")

    def on_end(self, outcome: Outcome) -> None:
        with self._lock:
            self._remove(outcome.trial)
            self._done += 1
            self._failed += bool(outcome.error)
            state = f"{self._failed} failed" if self._failed else ""
            self._bars.update(self._all, completed=self._done, state=state)
            count = f"{self._done}/{self._total}"
        if outcome.error:
            self._line(f"{count} failed: {outcome.trial.name}: {outcome.error}")
        elif not self._live:
            self._line(f"{count} finished: {outcome.trial.name}")

    def _remove(self, trial: Trial) -> None:
        task = self._tasks.pop(trial.name, None)
        if task is not None:
            self._bars.remove_task(task)
