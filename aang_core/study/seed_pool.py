"""The seeds of a run in processes of their own, beside each other (``aang run --jobs N``).

Each process takes one seed at a time, with its share of the cores, and leaves what a run of that seed alone would
leave. An interruption loses no finished seed, and the others go on from their checkpoints.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aang_core.config.settings import RunConfig
from aang_core.cores import cores
from aang_core.errors import ConfigError
from aang_core.processes import Processes
from aang_core.rundir.report import SeedReport
from aang_core.train.callbacks import Progress, Watcher

if TYPE_CHECKING:
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord

_LOOK = 0.2
"""Seconds between looks at the processes' messages."""

_messages: Any = None
_stop: Any = None
"""A worker's way to tell how far it is, and to hear that it should end; set once when the process starts."""


def check_jobs(jobs: int, processes: Processes) -> None:
    """:raises ConfigError: where there is no job, or every seed is shared among processes already."""
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1 (got {jobs})")
    if jobs > 1 and processes.size > 1:
        raise ConfigError(
            f"--jobs {jobs} gives each seed a process, but this run shares each seed among {processes.size} "
            "processes; leave out one of the two"
        )


def run_seeds(
    config: RunConfig, directory: Path, resume: bool, watcher: Watcher, jobs: int
) -> list[SeedReport]:
    """The reports of all seeds, in their order.

    :param watcher: hears remarks, and the steps of all seeds together as one preparation.
    :raises AangError: of the first seed that failed; seeds under way end first, seeds that wait are not begun.
    """
    context = mp.get_context("spawn")
    messages, stop = context.SimpleQueue(), context.Event()
    jobs = min(jobs, len(config.seeds))
    threads = max(1, cores() // jobs)
    course = _Course(watcher, config)
    # the environment is what OpenMP reads when it starts in the new processes
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        with ProcessPoolExecutor(jobs, context, _begin, (messages, stop)) as pool:
            futures = [pool.submit(_work, config, n, directory, resume) for n in config.seeds]
            try:
                _follow(futures, messages, course)
            except KeyboardInterrupt:
                stop.set()  # each seed ends its step and writes a checkpoint
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return [future.result() for future in futures]


def _follow(futures: list[Future[SeedReport]], messages: Any, course: _Course) -> None:
    """Pass messages on until all have ended; raises what the first failure raised."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED)
        while not messages.empty():
            course.hear(*messages.get())
        for future in done:
            future.result()
    course.end()


class _Course:
    """How far all seeds are together."""

    def __init__(self, watcher: Watcher, config: RunConfig) -> None:
        self.watcher, self.seeds = watcher, len(config.seeds)
        self.steps: dict[int, int] = {}
        self.totals: dict[int, int] = {}

    def hear(self, seed: int, kind: str, value: Any) -> None:
        """A message of one process."""
        if kind == "remark":
            self.watcher.on_remark(f"seed {seed}: {value}")
            return
        table = self.totals if kind == "total" else self.steps
        table[seed] = value
        done, total = sum(self.steps.values()), max(self.totals.values(), default=0) * self.seeds
        self.watcher.on_preparation(self.name, min(done, total - 1), total)

    def end(self) -> None:
        """All seeds have ended."""
        if self.totals:
            total = max(self.totals.values()) * self.seeds
            self.watcher.on_preparation(self.name, total, total)

    @property
    def name(self) -> str:
        """What the watcher shows."""
        return f"steps of {self.seeds} seeds"


class _Teller(Watcher):
    """Sends a seed's course to the first process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_seed(self, session: Session) -> None:
        from aang_core.train.trainer import phases

        _messages.put((self.seed, "total", sum(steps for _, steps in phases(session))))

    @property
    def stopping(self) -> bool:
        return bool(_stop.is_set())

    def on_step(
        self,
        session: Session,  # noqa: ARG002
        record: StepRecord,  # noqa: ARG002
        progress: Progress,
    ) -> None:
        parent = mp.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)  # nobody waits for this seed; whoever resumes the run has to find it alone
        _messages.put((self.seed, "step", progress.done))

    def on_remark(self, remark: str) -> None:
        _messages.put((self.seed, "remark", remark))


def _begin(messages: Any, stop: Any) -> None:
    """Once in each new process; signals are the first one's business, which then says `stop`."""
    global _messages, _stop
    _messages, _stop = messages, stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _work(config: RunConfig, seed: int, directory: Path, resume: bool) -> SeedReport:
    """One seed, in a process of its own."""
    from aang_core.registry.registry import load_registry
    from aang_core.rundir.directory import seed_directory
    from aang_core.study.seed import run_seed
    from aang_core.train.loggers import Logged, chosen_loggers
    from aang_core.train.resolve import resolve

    registry = load_registry(frozenset(config.plugins) or None)
    resolved = resolve(config, registry)
    watcher = Logged(_Teller(seed), chosen_loggers(config.log, registry), config)
    watcher.directory = directory
    with closing(watcher):
        place = seed_directory(directory, config.seeds, seed)
        return run_seed(resolved, seed, place, resume, watcher, Processes())
