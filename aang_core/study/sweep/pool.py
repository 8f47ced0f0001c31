"""A sweep's trials in processes of this machine, a fresh one for each: what one leaves behind or breaks is its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO

import attrs

from aang_core.cores import cores
from aang_core.study.sweep.trial import Outcome, Trial, order_for

PATIENCE = 60.0
"""Seconds that trials have to end their step and stop, before they are killed."""

_MOST_WORKERS = 8  # each holds an encoder, its optimiser and the libraries: 1 GB and more


class SweepWatcher:
    """What a sweep tells while it goes on; override what you want to hear. Several threads call."""

    def on_plan(self, trials: Sequence[Trial], finished: Sequence[Trial]) -> None:
        """Before the first trial; `finished` are those of an earlier call, which are kept."""

    def on_start(self, trial: Trial, attempt: int) -> None:
        """When a trial begins or goes on; `attempt` counts from 1."""

    def on_progress(
        self, trial: Trial, done: int | None, total: int | None, best: float | None
    ) -> None:
        """After a step (`done` of `total`) or an evaluation (`best` on dev); None for what is not new."""

    def on_retry(self, trial: Trial, error: str) -> None:
        """When a trial failed and will be tried again."""

    def on_end(self, outcome: Outcome) -> None:
        """When a trial is finished, or has failed for the last time."""

    def on_remark(self, remark: str) -> None:
        """What the user should know."""


@attrs.frozen(kw_only=True)
class Machine:
    """How a sweep uses this machine.

    :param workers: trials beside each other; :param threads: of each one, so that all together fit the cores.
    :param devices: CUDA devices by number or name, dealt out to the workers in turn; none for the CPU.
    """

    workers: int
    threads: int
    devices: tuple[str, ...] = ()


def machine_for(trials: int, workers: int | None, devices: Sequence[str]) -> Machine:
    """By default a worker a CUDA device, or a core (at most 8), and no more than there are trials.

    ``workers × threads`` never exceeds the cores; a smaller ``OMP_NUM_THREADS`` of the user's is kept.
    """
    usual = len(devices) or min(cores(), _MOST_WORKERS)
    count = max(1, min(workers or usual, trials, cores()))
    threads = cores() // count
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        threads = min(threads, int(given))
    return Machine(workers=count, threads=threads, devices=tuple(devices))


def in_processes(
    trials: Sequence[Trial], machine: Machine, retries: int, watcher: SweepWatcher
) -> None:
    """Carry out trials, each in a process of its own; a failed one is tried again `retries` times.

    :raises KeyboardInterrupt: after the trials under way have stopped behind a step.
    """
    lanes: SimpleQueue[int] = SimpleQueue()
    for lane in range(machine.workers):
        lanes.put(lane)
    running = Running()

    def one(trial: Trial) -> None:
        lane = lanes.get()
        try:
            _attempts(trial, _environment(machine, lane), retries, watcher, running)
        finally:
            lanes.put(lane)

    with ThreadPoolExecutor(machine.workers, thread_name_prefix="aang-trials") as threads:
        futures = [threads.submit(one, trial) for trial in trials]
        try:
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            running.stop()
            raise


def _attempts(
    trial: Trial,
    environment: Mapping[str, str],
    retries: int,
    watcher: SweepWatcher,
    running: Running,
) -> None:
    """Start a trial until it is finished, has failed too often, or the sweep is stopped."""
    for attempt in range(1, retries + 2):
        watcher.on_start(trial, attempt)
        error = carried_out(trial, environment, watcher, running)
        if running.stopped:
            return
        if not error or attempt > retries:
            watcher.on_end(Outcome(trial=trial, attempts=attempt, error=error))
            return
        watcher.on_retry(trial, error)


def carried_out(
    trial: Trial,
    environment: Mapping[str, str],
    watcher: SweepWatcher,
    running: Running,
    folder: str = "",
) -> str:
    """One process, from its start to its end; why it failed, or nothing.

    :param folder: where relative names of tasks and models are looked up; by default here.
    """
    trial.log.parent.mkdir(parents=True, exist_ok=True)
    with trial.log.open("ab") as log:
        process = running.start(log, environment)
        if process is None:
            return "interrupted"
        with process:
            said = _followed(process, order_for(trial, folder), trial, watcher)
    running.forget(process)
    if said is None:
        return f"{_ending(process.returncode)}; see {trial.log}"
    return said


def _followed(
    process: subprocess.Popen[str], order: str, trial: Trial, watcher: SweepWatcher
) -> str | None:
    """Give the order, pass on what the trial tells, and wait for its end.

    :returns: the error that the trial names, nothing where it says that it is finished, None where it says neither.
    """
    total, error = None, None
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a trial's process was started without pipes")
    try:
        process.stdin.write(order + "\n")
        process.stdin.flush()  # and left open: its end tells the trial that nobody waits for it
    except BrokenPipeError:
        pass  # it is dead already, and its exit code will say how
    for line in process.stdout:
        told = json.loads(line)
        error = told.get("error", error)
        total = told.get("steps", total)
        if "error" not in told:
            watcher.on_progress(trial, told.get("done"), total, told.get("best"))
    process.wait()
    return error


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    kill = " (often: out of memory)" if -code == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{kill}"


def environment_for(threads: int) -> dict[str, str]:
    """The environment of a trial with that many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _environment(machine: Machine, lane: int) -> dict[str, str]:
    """The same, with the CUDA device of a worker."""
    found = environment_for(machine.threads)
    if machine.devices:
        found["CUDA_VISIBLE_DEVICES"] = machine.devices[lane % len(machine.devices)]
    return found


class Running:
    """The processes under way, and their end."""

    def __init__(self) -> None:
        self.stopped = False
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()

    def start(self, log: IO[bytes], environment: Mapping[str, str]) -> subprocess.Popen[str] | None:
        """A trial's process; None once everything is stopped.

        In a session of its own, so that Ctrl-C in the terminal reaches the sweep alone, which then stops its trials.
        """
        with self._lock:
            if self.stopped:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "aang_core.study.sweep.trial"],
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
        """One has ended."""
        with self._lock:
            self._processes.discard(process)

    def stop(self) -> None:
        """Interrupt all; kill those that take longer than `PATIENCE`, or all when interrupted again."""
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
