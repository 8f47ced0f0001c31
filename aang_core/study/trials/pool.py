"""Run trials on this machine, each in a fresh process, so that no trial can disturb another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from queue import SimpleQueue
from typing import IO, Any

import attrs
import torch

from aang_core.batch.protocols import no_op
from aang_core.config.settings import RunConfig
from aang_core.machine import cores
from aang_core.study.trials.trial import Outcome, Trial
from aang_core.train.callbacks import Callback, Progress
from aang_core.train.step import StepRecord

PATIENCE = 60.0
"""Seconds that trials have to end their step and stop, before they are killed."""

_LOOK = 0.2  # seconds between looks at what a callback wants
_MOST_WORKERS = 8  # each holds an encoder, its optimiser and the libraries: 1 GB and more

Ended = Callable[[Outcome], None]


class StudyCallback(Callback):
    """A callback that also follows the trials of a study: their starts, progress and ends.

    A run in this process calls the methods of `Callback`. Trials in processes of their own call the methods here, from
    several threads. While they run, `stopping` is polled; once it is true, each trial finishes its step and the study
    stops.
    """

    def on_plan(self, trials: Sequence[Trial], finished: Sequence[Trial]) -> None:
        """Before the first trial. `finished` are the trials of an earlier call; they are kept."""

    def on_start(self, trial: Trial, attempt: int) -> None:
        """When a trial starts or resumes; `attempt` counts from 1."""

    def on_progress(
        self, trial: Trial, done: int | None, total: int | None, best: float | None
    ) -> None:
        """After a step (`done` of `total`) or an evaluation (`best` on dev); None for a value that has not changed."""

    def on_record(self, trial: Trial, record: StepRecord | None, progress: Progress) -> None:
        """After every step, and after every evaluation without a record, where the study asked for records."""

    def on_retry(self, trial: Trial, error: str) -> None:
        """When a trial failed and will be retried."""

    def on_end(self, outcome: Outcome) -> None:
        """When a trial succeeded, or failed for the last time."""


@attrs.frozen(kw_only=True)
class Machine:
    """How a study uses this machine.

    :param workers: trials at a time. :param threads: of each; all together fit the cores.
    :param devices: CUDA devices by number or name, shared out to the workers in turn; none for the CPU.
    """

    workers: int
    threads: int
    devices: tuple[str, ...] = ()


def machine_for(trials: int, workers: int | None, devices: Sequence[str]) -> Machine:
    """By default one worker per CUDA device, or per core (at most 8), and no more than trials.

    ``workers × threads`` never exceeds the cores. A smaller ``OMP_NUM_THREADS`` in the environment is kept.
    """
    usual = len(devices) or min(cores(), _MOST_WORKERS)
    count = max(1, min(workers or usual, trials, cores()))
    threads = cores() // count
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        threads = min(threads, int(given))
    return Machine(workers=count, threads=threads, devices=tuple(devices))


def devices_for(configurations: Iterable[RunConfig]) -> list[str]:
    """The CUDA devices that trials may use, as ``CUDA_VISIBLE_DEVICES`` would name them."""
    if all(config.device == "cpu" for config in configurations) or not torch.cuda.is_available():
        return []
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def in_processes(
    trials: Sequence[Trial],
    callback: StudyCallback,
    *,
    workers: int | None = None,
    retries: int = 0,
    halting: bool = False,
    records: bool = False,
    begun: Callable[[Machine], None] = no_op,
    ended: Ended = no_op,
) -> list[Outcome]:
    """Run trials, each in a process of its own; retry a failed one `retries` times.

    :param workers: trials at a time; None for what the machine can hold.
    :param halting: whether to start no further trial once one has failed; running ones finish first.
    :param records: whether trials report the record of every step.
    :param begun: called with the use of the machine. :param ended: called with each outcome, before the callback.
    :returns: the outcomes of the trials that were started, in order.
    :raises KeyboardInterrupt: after the running trials have stopped between two steps.
    """
    if not trials:
        return []
    machine = machine_for(len(trials), workers, devices_for(trial.config for trial in trials))
    if workers and min(workers, len(trials)) > machine.workers:
        callback.on_remark(f"{machine.workers} workers instead of {workers}, a core each")
    begun(machine)
    lanes: SimpleQueue[int] = SimpleQueue()
    for lane in range(machine.workers):
        lanes.put(lane)
    running = Running()

    def one(trial: Trial) -> Outcome | None:
        lane = lanes.get()
        try:
            place = environment_for(machine.threads, machine.devices, lane)
            return _attempts(trial, trial.order(records=records), place, retries, callback, running)
        finally:
            lanes.put(lane)

    with ThreadPoolExecutor(machine.workers, thread_name_prefix="aang-trials") as threads:
        futures = [threads.submit(one, trial) for trial in trials]
        try:
            _await(futures, callback, halting, ended)
        except BaseException:
            for future in futures:
                future.cancel()
            running.stop()
            raise
    outcomes = (future.result() for future in futures if not future.cancelled())
    return [outcome for outcome in outcomes if outcome is not None]


def _await(
    futures: Sequence[Future[Outcome | None]], callback: StudyCallback, halting: bool, ended: Ended
) -> None:
    """Report outcomes until every trial has ended.

    :raises KeyboardInterrupt: when the callback asks the study to stop.
    """
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _LOOK, FIRST_COMPLETED)
        for future in done:
            outcome = None if future.cancelled() else future.result()
            if outcome is None:
                continue
            ended(outcome)
            callback.on_end(outcome)
            if outcome.error and halting:
                for each in pending:
                    each.cancel()
        if callback.stopping:
            raise KeyboardInterrupt


def _attempts(
    trial: Trial,
    order: str,
    environment: Mapping[str, str],
    retries: int,
    callback: StudyCallback,
    running: Running,
) -> Outcome | None:
    """Start a trial until it succeeds or has failed too often; None once the study is stopped."""
    for attempt in range(1, retries + 2):
        callback.on_start(trial, attempt)
        error = carried_out(trial, order, environment, callback, running)
        if running.stopped:
            return None
        if not error or attempt > retries:
            return Outcome(trial=trial, attempts=attempt, error=error)
        callback.on_retry(trial, error)
    raise ValueError(f"retries must be at least 0 (got {retries})")


def carried_out(
    trial: Trial,
    order: str,
    environment: Mapping[str, str],
    callback: StudyCallback,
    running: Running,
) -> str:
    """Run one trial's process to its end. Returns why it failed, or the empty string.

    :param order: its first line of input (`Trial.order`).
    """
    with ExitStack() as stack:
        log: IO[bytes] | None = None
        if trial.log is not None:
            trial.log.parent.mkdir(parents=True, exist_ok=True)
            log = stack.enter_context(trial.log.open("ab"))
        process = running.start(log, environment)
        if process is None:
            return "interrupted"
        with process:
            said = _followed(process, order, trial, callback)
    running.forget(process)
    if said is None:
        where = f"see {trial.log}" if trial.log else "what it wrote last stands above"
        return f"{_ending(process.returncode)}; {where}"
    return said


def _followed(
    process: subprocess.Popen[str], order: str, trial: Trial, callback: StudyCallback
) -> str | None:
    """Give the order, pass on the progress, and wait for the end.

    :returns: the trial's error, the empty string if it reports success, None if it reports neither.
    """
    total, error = None, None
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a trial's process was started without pipes")
    try:
        process.stdin.write(order + "\n")
        process.stdin.flush()  # stays open: its end tells the trial that this process is gone
    except BrokenPipeError:
        pass  # it is dead already; its exit code says why
    for line in process.stdout:
        told = json.loads(line)
        error = told.get("error", error)
        total = told.get("steps", total)
        if "remark" in told:
            callback.on_remark(f"{trial.name}: {told['remark']}")
        elif "error" not in told:
            callback.on_progress(trial, told.get("done"), total, told.get("best"))
        if "progress" in told:
            callback.on_record(trial, *_record(told))
    process.wait()
    return error


def _record(told: Mapping[str, Any]) -> tuple[StepRecord | None, Progress]:
    """The record of a step, if any, and the progress after it."""
    record = told.get("record")
    step = record and StepRecord(**{**record, "skipped": tuple(record["skipped"])})
    return step, Progress.read(told["progress"])


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    kill = " (often: out of memory)" if -code == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{kill}"


def environment_for(threads: int, devices: Sequence[str] = (), lane: int = 0) -> dict[str, str]:
    """The environment of a trial with so many threads, on the CUDA device of its worker if there are `devices`."""
    found = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if devices:
        found["CUDA_VISIBLE_DEVICES"] = devices[lane % len(devices)]
    return found


class Running:
    """The running processes, and how to stop them."""

    def __init__(self) -> None:
        self.stopped = False
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()

    def start(
        self, log: IO[bytes] | None, environment: Mapping[str, str]
    ) -> subprocess.Popen[str] | None:
        """Start a trial's process; None once everything is stopped.

        It gets its own session, so that Ctrl-C in the terminal reaches only the study, which then stops its trials.
        """
        with self._lock:
            if self.stopped:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "aang_core.study.trials.trial"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
            self._processes.add(process)
            return process

    def forget(self, process: subprocess.Popen[str]) -> None:
        """Drop a process that has ended."""
        with self._lock:
            self._processes.discard(process)

    def stop(self) -> None:
        """Interrupt all; kill the ones that take longer than `PATIENCE`, or all when interrupted again."""
        with self._lock:
            self.stopped = True
            left = list(self._processes)
        for process in left:
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        try:
            for process in left:
                process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for process in left:
                process.kill()
