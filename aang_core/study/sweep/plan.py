"""A sweep before its first trial. In: an `Experiment`. Out: a `Plan` of its trials, or everything that cannot run."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.file import dump_config
from aang_core.config.settings import SECTIONS, Heads, Meta, RunConfig, Training
from aang_core.errors import AangError, ConfigError, faults_in, one_message
from aang_core.registry.registry import load_registry
from aang_core.rundir.directory import seed_directory
from aang_core.rundir.recipe import check_recipe
from aang_core.study.sweep.experiments import Experiment
from aang_core.study.sweep.trial import Trial
from aang_core.train.resolve import resolve

_LONGEST = 100  # characters of a folder's name


@attrs.frozen(kw_only=True)
class Plan:
    """A sweep before its first trial.

    :param configurations: by name, in the order of the specification.
    :param places: name → the configuration's run directory.
    :param trials: seeds outermost, so that a sweep that is stopped early has compared all configurations on some.
    """

    title: str
    directory: Path
    configurations: Mapping[str, RunConfig]
    places: Mapping[str, Path]
    trials: tuple[Trial, ...]


def planned(experiment: Experiment, out: Path) -> Plan:
    """The trials of an experiment, and where each lies; nothing is read or written.

    :raises ConfigError: where two configurations are the same under two names.
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
    trials = [
        Trial(
            configuration=name,
            config=attrs.evolve(config, seeds=(seed,)),
            directory=seed_directory(places[name], config.seeds, seed),
            log=out / "logs" / f"{places[name].name}-seed-{seed}.log",
        )
        for name, config in experiment.runs.items()
        for seed in config.seeds
    ]
    turn = {t.name: experiment.runs[t.configuration].seeds.index(t.seed) for t in trials}
    return Plan(
        title=experiment.title,
        directory=out,
        configurations=experiment.runs,
        places=places,
        trials=tuple(sorted(trials, key=lambda trial: turn[trial.name])),
    )


def _places(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """A folder for each name: the name itself, as far as any file system takes it."""
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
    """Read every task and resolve every space once, so that what cannot run is known before anything does.

    :raises ConfigError: every fault, with the first configuration that has it.
    """
    seen: set[str] = set()
    faults: dict[str, list[str]] = {}
    for name, config in configurations.items():
        # what is named and read, without the numbers of training
        resolved = attrs.evolve(config, training=Training(), meta=Meta(), heads=Heads())
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


def differing_settings(configurations: Mapping[str, RunConfig]) -> dict[str, dict[str, Any]]:
    """Name → the settings in which the configurations are not all alike."""
    dotted = {name: _dotted_settings(config) for name, config in configurations.items()}
    keys = dict.fromkeys(key for table in dotted.values() for key in table)
    varied = [key for key in keys if len({repr(table.get(key)) for table in dotted.values()}) > 1]
    return {name: {key: table.get(key) for key in varied} for name, table in dotted.items()}


def _dotted_settings(config: RunConfig) -> dict[str, Any]:
    """Every setting by dotted key, without the seeds."""
    found: dict[str, Any] = {}
    for name, value in attrs.asdict(config).items():
        key = name.rstrip("_")
        if key in SECTIONS:
            found |= {f"{key}.{inner}": part for inner, part in value.items()}
        elif key == "primitives":
            found |= {f"{key}.{p}.{k}": v for p, table in value.items() for k, v in table.items()}
        elif key != "seeds":
            found[key] = value
    return found
