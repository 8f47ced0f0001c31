"""Trials under Ray Tune, on this machine or on a cluster (the extra ``aang[sweep]``).

Tune distributes the trials, retries failed ones, and shows dev over time if a dashboard runs. A trial is the same as
without Ray: a process that writes into its run directory. All nodes must share the file system of that directory, and
of the task and the encoder if they are folders. Relative paths start from the folder in which the study was started.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aang_core.batch.protocols import no_op
from aang_core.errors import RunError
from aang_core.study.trials.pool import (
    Ended,
    Running,
    StudyCallback,
    carried_out,
    environment_for,
    machine_for,
)
from aang_core.study.trials.trial import Outcome, Trial

LOCAL = "local"

_ANSWER = 10.0  # seconds that a cluster's head may take to answer

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials write their own history
    "RAY_AIR_NEW_OUTPUT": "0",  # no tables of its own on the terminal
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the study, which ends Ray
}


def on_ray(
    trials: Sequence[Trial],
    address: str,
    directory: Path,
    workers: int | None,
    retries: int,
    callback: StudyCallback,
    ended: Ended = no_op,
) -> int:
    """Run trials on a cluster. Returns the threads of each.

    :param address: of a cluster, or `LOCAL` to start one here for this call.
    :param workers: most trials at a time; None for one per GPU, or per core without GPUs.
    :param ended: called with each outcome, before the callback.
    :raises RunError: if Ray is not installed or the cluster does not answer.
    """
    if find_spec("ray") is None:
        raise RunError("--ray needs Ray, which is not installed: pip install 'aang[sweep]'")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    scaffold = directory / ".ray"  # what Tune keeps; nothing here is needed to go on
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
        _connect(ray, address)
        try:
            count, threads, gpus = _shares(ray, address, len(trials), workers)
            callback.on_remark(
                f"Ray: {count} trials beside each other, {threads} CPUs each"
                + (", a GPU each" if gpus else "")
            )
            shutil.rmtree(scaffold, ignore_errors=True)
            resources = {"cpu": threads, "gpu": gpus}
            _tune(trials, scaffold, count, resources, retries, callback, ended)
        finally:
            ray.shutdown()
            shutil.rmtree(scaffold, ignore_errors=True)
    return threads


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, include_dashboard=False, **quiet)
        else:
            _knock(address)
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as cause:
        raise RunError(
            f"no Ray cluster can be used at {address!r}: {cause}; give the address that `ray start` has printed, or "
            "--ray alone for a cluster on this machine"
        ) from cause


def _knock(address: str) -> None:
    """Check that something listens at ``host:port``; Ray itself would retry for minutes.

    :raises OSError: if nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal() and int(port) < 2**16:
        socket.create_connection((host, int(port)), _ANSWER).close()


def _shares(ray: Any, address: str, trials: int, workers: int | None) -> tuple[int, int, int]:
    """Trials at a time, CPUs of each, GPUs of each. A trial never needs more CPUs than a node has."""
    total = ray.cluster_resources()
    gpus, cpus = int(total.get("GPU", 0)), max(1, int(total.get("CPU", 1)))
    if address == LOCAL and not gpus:
        machine = machine_for(trials, workers, ())
        return machine.workers, machine.threads, 0
    count = max(1, min(workers or gpus or cpus, gpus or cpus, trials))
    sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    largest = max([*sizes, 1])
    beside = math.ceil(count / max(1, len(sizes)))
    return count, max(1, min(cpus // count, largest // beside)), int(gpus > 0)


def _tune(
    trials: Sequence[Trial],
    scaffold: Path,
    count: int,
    resources: Mapping[str, int],
    retries: int,
    callback: StudyCallback,
    ended: Ended,
) -> None:
    from ray import tune

    by_order = {trial.order(threads=resources["cpu"]): trial for trial in trials}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, dict(resources)),
        param_space={"order": tune.grid_search(list(by_order))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=count,
            reuse_actors=False,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scaffold),
            failure_config=tune.FailureConfig(max_failures=retries),
            callbacks=[_callback(tune.Callback, by_order, callback, ended)],
            verbose=0,
        ),
    )
    tuner.fit()


def run_trial(parameters: Mapping[str, Any]) -> None:
    """What Tune calls, somewhere in the cluster.

    :raises RunError: with the trial's own error.
    """
    order = json.loads(parameters["order"])
    environment = environment_for(order["threads"])
    trial = Trial.ordered(order)
    error = carried_out(trial, parameters["order"], environment, _Reporting(), Running())
    if error:
        from ray import tune

        tune.report({"error": error})  # what is raised reaches the driver as Ray's text, and later
        raise RunError(error)


class _Reporting(StudyCallback):
    """Reports dev to Tune."""

    def __init__(self) -> None:
        self.done, self.total = 0, 0

    def on_progress(
        self,
        trial: Trial,  # noqa: ARG002
        done: int | None,
        total: int | None,
        best: float | None,
    ) -> None:
        from ray import tune

        self.done, self.total = done or self.done, total or self.total
        if best is not None:
            tune.report({"dev": best, "step": self.done, "steps": self.total})


def _callback(
    base: type, by_order: Mapping[str, Trial], callback: StudyCallback, ended: Ended
) -> Any:
    """Tune's callback, which calls ours. Its base class is Ray's, so it is made here."""

    class Telling(base):  # type: ignore[misc]
        def __init__(
            self, by_order: Mapping[str, Trial], callback: StudyCallback, ended: Ended
        ) -> None:
            self.by_order, self.callback, self.ended = by_order, callback, ended
            self.errors: dict[str, str] = {}

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune saves its callbacks to disk; ours holds locks and a terminal

        def named(self, trial: Any) -> Trial:
            return self.by_order[trial.config["order"]]

        def on_trial_start(self, trial: Any, **_: Any) -> None:
            self.callback.on_start(self.named(trial), trial.num_failures + 1)

        def on_trial_result(self, trial: Any, result: Any, **_: Any) -> None:
            if "dev" in result:
                told = result["step"], result["steps"], result["dev"]
                self.callback.on_progress(self.named(trial), *told)
            if "error" in result:
                self.errors[trial.trial_id] = result["error"]

        def reason(self, trial: Any) -> str:
            """Why a trial failed: its own error, or what Ray says of a trial that could not say anything."""
            own = self.errors.pop(trial.trial_id, None)
            return own or str(trial.get_error() or "Ray lost it and gives no reason")

        def on_trial_recover(self, trial: Any, **_: Any) -> None:
            self.callback.on_retry(self.named(trial), self.reason(trial))

        def on_trial_complete(self, trial: Any, **_: Any) -> None:
            self.end(Outcome(trial=self.named(trial), attempts=trial.num_failures + 1))

        def on_trial_error(self, trial: Any, **_: Any) -> None:
            attempts, error = trial.num_failures, self.reason(trial)
            self.end(Outcome(trial=self.named(trial), attempts=attempts, error=error))

        def end(self, outcome: Outcome) -> None:
            self.ended(outcome)
            self.callback.on_end(outcome)

    return Telling(by_order, callback, ended)
