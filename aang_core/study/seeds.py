"""The seeds of a run several at once, each in its own process (``aang run --jobs N``).

Each writes the same files as one after another would (`seed.run_seed`), and an interruption loses no finished seed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError, RunError
from aang_core.processes import Processes
from aang_core.registry.registry import load_registry
from aang_core.rundir.failures import explained
from aang_core.rundir.report import SeedReport
from aang_core.study.seed import run_seed, taken_seed
from aang_core.study.training import SeedJob
from aang_core.study.trials.pool import StudyCallback, in_processes
from aang_core.study.trials.trial import Trial
from aang_core.train.callbacks import Callback, Callbacks, Progress, Stopped
from aang_core.train.loggers import Logged, chosen_loggers
from aang_core.train.resolve import resolve
from aang_core.train.step import StepRecord

_NEEDING = (
    *("on_seed", "on_train_begin", "on_trained", "on_train_end"),
    *("should_training_stop", "state_dict", "load_state_dict"),
)
"""What a callback cannot override if the seeds train in other processes."""


class SeedElsewhere:
    """Stands in for the session of a seed in another process. :ivar seed: all that is known here."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"session.{name} is in another process: with jobs > 1 a callback is given the seed alone "
            "(session.seed), the record and the progress; train with jobs = 1 to see more"
        )


def check_jobs(
    jobs: int, config: RunConfig, callbacks: Sequence[Callback], processes: Processes
) -> None:
    """:raises ConfigError: if there is no job, processes share each seed already, or a callback needs the session of a
    seed in another process.
    """
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1 (got {jobs})")
    if jobs > 1 and processes.size > 1:
        raise ConfigError(
            f"--jobs {jobs} gives each seed a process, but this run shares each seed among {processes.size} "
            "processes; leave out one of the two"
        )
    for callback in callbacks if jobs > 1 and len(config.seeds) > 1 else ():
        needing = [name for name in _NEEDING if _overrides(callback, name)]
        if needing:
            raise ConfigError(
                f"{type(callback).__name__} overrides {' and '.join(needing)}, for which the session of a seed is "
                f"needed, but jobs = {jobs} trains the seeds in processes of their own; leave that out, let a plugin "
                "bring the callback (`callbacks = [...]` in the configuration: each process loads it), or train with "
                "jobs = 1"
            )


def _overrides(callback: Callback, name: str) -> bool:
    return getattr(type(callback), name) is not getattr(Callback, name)


def run_seeds(
    config: RunConfig, directory: Path, resume: bool, callback: Callbacks, jobs: int
) -> list[SeedReport]:
    """Train the seeds of a run in processes of their own, `jobs` at a time.

    :param callback: receives remarks, the steps of all seeds together as one preparation and, if it overrides these
        methods, the record of every step and the progress at every evaluation. Its calls never overlap.
    :returns: the reports of all seeds, in their order.
    :raises RunError: of the first seed that failed. Running seeds finish first, waiting ones do not start.
    """
    trials = [Trial(config=config, directory=directory, seed=seed) for seed in config.seeds]
    course = _Course(callback, len(trials))
    try:
        outcomes = in_processes(
            [trial for trial in trials if not (resume and trial.is_finished)],
            course,
            workers=jobs,
            halting=True,
            records=any(
                _overrides(member, name)
                for member in callback.members
                for name in ("on_step", "on_step_end", "on_evaluation", "on_evaluate")
            ),
        )
    except KeyboardInterrupt:
        if course.asked:
            raise Stopped(sum(course.steps.values())) from None
        raise
    for outcome in outcomes:
        if outcome.error:
            raise RunError(outcome.error)
    course.end()
    return [taken_seed(trial.place, Processes()) for trial in trials]


def run_part(trial: Trial, callback: Callback) -> None:
    """Train one seed of a run in this process; another process holds the run's directory."""
    config = trial.config
    registry = load_registry(frozenset(config.plugins) or None)
    logged = Logged(chosen_loggers(config.log, registry), config)
    logged.on_begin(trial.directory)
    with explained(config, trial.directory), closing(logged):
        resolved = resolve(config, registry)
        job = SeedJob(
            seed=int(trial.seed or 0),
            directory=trial.place,
            resume=True,
            callbacks=Callbacks([logged, callback]),
            processes=Processes(),
        )
        run_seed(resolved, job)


class _Course(StudyCallback):
    """Sums the progress of all seeds for a run's callback, one call at a time, because that one knows no threads."""

    def __init__(self, callback: Callback, seeds: int) -> None:
        self.callback, self.seeds = callback, seeds
        self.asked = False
        self.steps: dict[int | None, int] = {}
        self.totals: dict[int | None, int] = {}
        self._lock = threading.Lock()

    @property
    def stopping(self) -> bool:
        self.asked = self.callback.stopping
        return self.asked

    def on_progress(
        self,
        trial: Trial,
        done: int | None,
        total: int | None,
        best: float | None,  # noqa: ARG002
    ) -> None:
        with self._lock:
            self.totals[trial.seed] = total or 1
            self.steps[trial.seed] = self.steps.get(trial.seed, 0) if done is None else done
            steps = max(self.totals.values()) * self.seeds
            self._tell(min(sum(self.steps.values()), steps - 1), steps)

    def on_record(self, trial: Trial, record: StepRecord | None, progress: Progress) -> None:
        session: Any = SeedElsewhere(int(trial.seed or 0))
        with self._lock:
            if record is None:
                self.callback.on_evaluate(session, progress)
            else:
                self.callback.on_step_end(session, record, progress)

    def on_remark(self, remark: str) -> None:
        with self._lock:
            self.callback.on_remark(remark)

    def end(self) -> None:
        """Report that all seeds have ended."""
        if self.totals:
            steps = max(self.totals.values()) * self.seeds
            self._tell(steps, steps)

    def _tell(self, done: int, total: int) -> None:
        self.callback.on_preparation(f"steps of {self.seeds} seeds", done, total)
