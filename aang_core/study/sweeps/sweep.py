"""Sweeps: every configuration of an experiment with every one of its seeds, several at once, resumable.

A sweep's directory holds, for each configuration, a run directory under ``runs/`` (with several seeds ``seed-N/`` in
it, as ``aang run`` would leave them), ``logs/``, ``results.json`` and ``results.md``. The same call continues where
it stopped: finished trials are kept, interrupted ones resume from their checkpoints, failed ones are retried.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.file import dump_config
from aang_core.config.settings import HeadSettings, Meta, RunConfig, Training
from aang_core.errors import AangError, ConfigError, RunError, faults_in, one_message
from aang_core.files import write_text
from aang_core.registry.registry import load_registry
from aang_core.rundir.directory import JobDirectory, seed_directory, seed_folder
from aang_core.rundir.recipe import check_recipe
from aang_core.study.results import sweep_results, write_sweep_results
from aang_core.study.run import run
from aang_core.study.searched import with_refit
from aang_core.study.seed import FINISHED
from aang_core.study.sweeps.sweep_file import Experiment
from aang_core.study.trials.pool import Machine, StudyCallback, in_processes
from aang_core.study.trials.trial import Outcome, Trial, check_kept
from aang_core.train.resolve import resolve

_LONGEST = 100  # characters of a folder's name


@attrs.frozen(kw_only=True)
class SweepPlan:
    """A sweep before its first trial.

    :param configurations: by name, in the order of the specification.
    :param places: name → the configuration's run directory.
    :param trials: seeds outermost, so that a sweep that stops early has all configurations on the first seeds.
    """

    title: str
    directory: Path
    configurations: Mapping[str, RunConfig]
    places: Mapping[str, Path]
    trials: tuple[Trial, ...]


def planned(experiment: Experiment, out: Path) -> SweepPlan:
    """The trials of an experiment and their folders; reads and writes nothing.

    :raises ConfigError: if a configuration has two names.
    """
    names: dict[str, str] = {}
    faults = []
    for name, config in experiment.runs.items():
        text = dump_config(config)
        if text in names:
            faults.append(f"{name!r} and {names[text]!r} are the same configuration; drop one")
        names.setdefault(text, name)
    if faults:
        raise ConfigError(one_message(faults, experiment.title))
    out = out.absolute()
    places = _places(out / "runs", list(experiment.runs))
    searches = {name: _search(config, names) for name, config in experiment.runs.items()}
    trials = [
        Trial(
            configuration=name,
            seed=seed,
            config=attrs.evolve(config, seeds=(seed,)),
            directory=seed_directory(places[name], config.seeds, seed),
            search=seed_directory(places[shared], config.seeds, seed)
            if (shared := searches[name])
            else None,
            log=out / "logs" / f"{places[name].name}-{seed_folder(seed)}.log",
        )
        for turn in range(max(len(config.seeds) for config in experiment.runs.values()))
        for name, config in experiment.runs.items()
        for seed in config.seeds[turn : turn + 1]
    ]
    return SweepPlan(
        title=experiment.title,
        directory=out,
        configurations=experiment.runs,
        places=places,
        trials=tuple(trials),
    )


def _search(config: RunConfig, names: Mapping[str, str]) -> str:
    """The name of the configuration that has the same search, and no training after it; empty where there is none.

    :param names: of configurations by their text.
    """
    once = with_refit(config, "none")
    return "" if config == once else names.get(dump_config(once), "")


def _places(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """A folder for each name: the name itself, in characters that every file system accepts."""
    plain = {name: re.sub(r"[^\w.+=-]+", "_", name).strip("._-") for name in names}
    known = Counter(text.lower() for text in plain.values())
    found = {}
    for name, text in plain.items():
        if not text or known[text.lower()] > 1 or len(text) > _LONGEST or not text.isascii():
            digest = hashlib.sha256(name.encode()).hexdigest()[:8]
            text = "-".join(
                filter(None, (text.encode("ascii", "ignore").decode()[:_LONGEST], digest))
            )
        found[name] = folder / text
    return found


def check_configurations(configurations: Mapping[str, RunConfig]) -> None:
    """Read every task and resolve every space once, to find all faults before the first trial.

    :raises ConfigError: every fault, with the first configuration that has it.
    """
    seen: set[str] = set()
    faults: dict[str, list[str]] = {}
    for name, config in configurations.items():
        # only what names tasks and spaces, not the numbers of training
        resolved = attrs.evolve(config, training=Training(), meta=Meta(), heads=HeadSettings())
        if dump_config(resolved) in seen:
            continue
        seen.add(dump_config(resolved))
        try:
            resolve(config, load_registry(frozenset(config.plugins) or None))
            check_recipe(config)
        except AangError as error:
            for fault in faults_in(str(error)):
                faults.setdefault(fault, []).append(name)
    said = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {fault}"
        for fault, names in faults.items()
    ]
    if said:
        raise ConfigError(one_message(said, "configurations that cannot run"))


def sweep(
    experiment: Experiment,
    out: str | Path,
    *,
    workers: int | None = None,
    retries: int = 1,
    ray: str | None = None,
    callback: StudyCallback | None = None,
) -> dict[str, Any]:
    """Carry out an experiment, or resume it; the same as ``aang sweep``.

    :param out: the sweep's directory.
    :param workers: trials at a time; None for what the machine, or the Ray cluster, can hold.
    :param retries: how often to retry a failed trial, from its last checkpoint. The others continue meanwhile.
    :param ray: a Ray cluster's address, or ``local``; None for processes of this machine.
    :param callback: follows the trials.
    :returns: the contents of ``results.json``. Failed trials are in it, and raise nothing.
    :raises ConfigError: if configurations name what does not exist; all faults at once, before any trial.
    :raises RunError: if `out` holds something else or trials of other settings, or another sweep is at work there.
    :raises KeyboardInterrupt: after the running trials have stopped.
    """
    told = callback or StudyCallback()
    plan = planned(experiment, Path(out))
    check_configurations(plan.configurations)
    errors: dict[str, str] = {}
    threads: int | None = None

    def write() -> dict[str, Any]:
        found = sweep_results(plan, errors, threads)
        write_sweep_results(plan.directory, found)
        return found

    def begun(machine: Machine) -> None:
        nonlocal threads
        threads = machine.threads
        write()

    def ended(outcome: Outcome) -> None:  # keeps the results up to date
        if outcome.error:
            errors[outcome.trial.name] = outcome.error
        write()

    place = JobDirectory(path=plan.directory, what="sweep", mark=".lock", known=("results.json",))
    with place.taken(resume=place.is_begun):
        _check_places(plan)
        waiting = [trial for trial in plan.trials if not trial.is_finished]
        told.on_plan(plan.trials, [trial for trial in plan.trials if trial.is_finished])
        if ray is None:
            in_processes(waiting, told, workers=workers, retries=retries, begun=begun, ended=ended)
        elif waiting:
            from aang_core.study.trials.ray_pool import on_ray

            write()
            threads = on_ray(waiting, str(ray), plan.directory, workers, retries, told, ended)
        _join_seeds(plan, told)
        return write()


def _check_places(plan: SweepPlan) -> None:
    """Refuse to mix trials of different settings, or a run of one seed with a run of several.

    :raises RunError: names every configuration whose folder holds something else.
    """
    singles = [
        f"{trial.name}: {place} holds one seed alone; delete that folder, or choose another --out"
        for trial in plan.trials
        if trial.directory != (place := plan.places[trial.configuration])
        and (place / FINISHED).exists()
    ]
    if singles:
        raise RunError(one_message(singles, f"the trials in {plan.directory}"))
    check_kept(plan.trials, f"the trials in {plan.directory}")


def _join_seeds(plan: SweepPlan, callback: StudyCallback) -> None:
    """Make a whole run of every configuration whose seeds are finished.

    This trains nothing, because a resumed run keeps finished seeds.
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
            callback.on_remark(f"{name}: the seeds are finished, but their summary failed: {error}")
