"""Sweeps: every configuration of an experiment with every one of its seeds, beside each other, resumable.

A sweep's directory holds, for each configuration, a run directory under ``runs/`` (with several seeds ``seed-N/`` in
it, as ``aang run`` would leave them), ``logs/``, ``results.json`` and ``results.md``. The same call goes on where it
stopped: finished trials are kept, broken ones go on from their checkpoints, failed ones are tried again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from aang_core.config.file import dump_config, load_config
from aang_core.config.settings import RunConfig
from aang_core.cores import cores
from aang_core.errors import AangError, RunError, one_message
from aang_core.files import write_text
from aang_core.rundir.directory import JobDirectory
from aang_core.study.run import run
from aang_core.study.sweep.experiments import Experiment
from aang_core.study.sweep.plan import Plan, check_configurations, planned
from aang_core.study.sweep.pool import SweepWatcher, in_processes, machine_for
from aang_core.study.sweep.results import results, write_results
from aang_core.study.sweep.trial import Outcome, Trial


def sweep(
    experiment: Experiment,
    out: str | Path,
    *,
    workers: int | None = None,
    retries: int = 1,
    ray: str | None = None,
    watcher: SweepWatcher | None = None,
) -> dict[str, Any]:
    """Carry out an experiment, or go on with it; the same as ``aang sweep``.

    :param out: the sweep's directory.
    :param workers: trials beside each other; None for what the machine, or the Ray cluster, can hold.
    :param retries: how often a failed trial is tried again, from its last checkpoint. The others go on meanwhile.
    :param ray: a Ray cluster's address, or ``local``; None for processes of this machine.
    :returns: what ``results.json`` holds. Failed trials are in it, and raise nothing.
    :raises ConfigError: where a configuration names what does not exist; all such faults at once, before any trial.
    :raises RunError: where `out` holds something else, trials of other settings, or another sweep that is under way.
    :raises KeyboardInterrupt: after the trials under way have stopped.
    """
    watcher = watcher or SweepWatcher()
    plan = planned(experiment, Path(out))
    check_configurations(plan.configurations)
    place = JobDirectory(path=plan.directory, what="sweep", mark=".lock", known=("results.json",))
    with place.taken(resume=place.is_begun):
        _check_places(plan)
        finished = [trial for trial in plan.trials if trial.is_finished]
        waiting = [trial for trial in plan.trials if not trial.is_finished]
        course = _Course(plan, watcher)
        watcher.on_plan(plan.trials, finished)
        if waiting and ray is None:
            machine = machine_for(len(waiting), workers, _devices(plan.configurations.values()))
            if workers and workers > machine.workers == cores():
                watcher.on_remark(f"{machine.workers} workers instead of {workers}, a core each")
            course.threads = machine.threads
            course.write()
            in_processes(waiting, machine, retries, course)
        elif waiting:
            from aang_core.study.sweep.ray_pool import on_ray

            course.write()
            course.threads = on_ray(waiting, str(ray), plan.directory, workers, retries, course)
        _join_seeds(plan, watcher)
        return course.write()


def _check_places(plan: Plan) -> None:
    """Refuse to mix trials of different settings.

    :raises RunError: names every configuration whose folder holds another one.
    """
    faults = []
    for trial in plan.trials:
        path = trial.directory / "config.toml"
        single = plan.places[trial.configuration] / "seed.json"
        other = trial.directory != single.parent and single.exists()
        if other or (path.exists() and load_config(path) != trial.config):
            faults.append(
                f"{trial.name}: {single.parent if other else trial.directory} holds a trial of other settings; "
                "rename the configuration, delete that folder, or choose another --out"
            )
    if faults:
        raise RunError(one_message(faults, f"the trials in {plan.directory}"))


def _devices(configurations: Iterable[RunConfig]) -> list[str]:
    """The CUDA devices that trials may use, as ``CUDA_VISIBLE_DEVICES`` would name them."""
    if all(config.device == "cpu" for config in configurations) or not torch.cuda.is_available():
        return []
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


class _Course(SweepWatcher):
    """Keeps ``results.json`` up to date while a sweep goes on, and tells the user's watcher everything."""

    def __init__(self, plan: Plan, watcher: SweepWatcher) -> None:
        self.plan, self.watcher = plan, watcher
        self.threads: int | None = None
        self._errors: dict[str, str] = {}
        self._lock = threading.Lock()

    def write(self) -> dict[str, Any]:
        """The results as they stand."""
        with self._lock:
            found = results(self.plan, self._errors, self.threads)
            write_results(self.plan.directory, found)
            return found

    def on_start(self, trial: Trial, attempt: int) -> None:
        self.watcher.on_start(trial, attempt)

    def on_progress(
        self, trial: Trial, done: int | None, total: int | None, best: float | None
    ) -> None:
        self.watcher.on_progress(trial, done, total, best)

    def on_retry(self, trial: Trial, error: str) -> None:
        self.watcher.on_retry(trial, error)

    def on_remark(self, remark: str) -> None:
        self.watcher.on_remark(remark)

    def on_end(self, outcome: Outcome) -> None:
        if outcome.error:
            self._errors[outcome.trial.name] = outcome.error
        self.write()
        self.watcher.on_end(outcome)


def _join_seeds(plan: Plan, watcher: SweepWatcher) -> None:
    """Make a whole run of every configuration whose seeds are finished.

    Nothing is trained: a resumed run takes finished seeds as they are.
    """
    for name, config in plan.configurations.items():
        trials = [trial for trial in plan.trials if trial.configuration == name]
        place = plan.places[name]
        text, path = dump_config(config), place / "config.toml"
        if len(trials) == 1 or not all(trial.is_finished for trial in trials):
            continue
        if (place / "report.json").exists() and path.read_text("utf-8") == text:
            continue
        write_text(path, text)
        try:
            run(config, out=place, resume=True)
        except AangError as error:
            watcher.on_remark(f"{name}: the seeds are finished, but their summary failed: {error}")
