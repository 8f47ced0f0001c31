"""Read finished run directories, for comparisons, report pages, recipes, predictions and submissions."""

from __future__ import annotations

import statistics as stats
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.file import load_config
from aang_core.config.settings import RunConfig
from aang_core.data.audit import unbalanced
from aang_core.errors import RunError, one_message
from aang_core.files import json_lines, json_of
from aang_core.rundir.directory import seed_directory, seed_folder
from aang_core.rundir.report import (
    mean_weights,
    read_report,
    seed_report,
    summary_of,
    weights_agreement,
)

AGAINST = "against.json"
"""In a run's directory: the baseline that was trained beside it, and what the two say of each other."""

CONTROL = "control.json"
"""In a run's directory: the same of its permutation control."""


@attrs.frozen(eq=False, kw_only=True)
class FinishedRun:
    """A run directory that holds a whole run, or several of one configuration with different seeds.

    :param name: the directory's name, or as much of its path as tells runs apart.
    :param report: ``report.json``; :param config: ``config.toml``; of several runs, both joined.
    :param folders: where each seed's files lie.
    """

    path: Path
    name: str
    report: Mapping[str, Any]
    config: RunConfig
    folders: Mapping[int, Path]

    @property
    def seeds(self) -> tuple[int, ...]:
        """In the order in which they ran."""
        return tuple(seed["seed"] for seed in self.report["seeds"])

    @property
    def split(self) -> str:
        """``test``, or ``dev`` where the test split has no labels or there is none."""
        return "test" if all(seed["test"] for seed in self.report["seeds"]) else "dev"

    @property
    def headline(self) -> str:
        """The metric that people read first: the run's own, or macro-F1 for accuracy where classes are unbalanced.

        Unbalanced is what the audit calls so (`audit.unbalanced`); accuracy then mostly says how the commonest class
        fares.
        """
        metric: str = self.report["metric"]
        macro = metric == "accuracy" and unbalanced(self.report.get("audit") or {})
        return "f1" if macro and self.scores(self.split, "f1") else metric

    @property
    def baseline(self) -> Path | None:
        """Where the baseline of ``aang run --against`` lies: beside this run; None where there is none."""
        name = read_against(self.path).get("directory")
        return self.path.with_name(name) if name else None

    @property
    def agreement(self) -> float | None:
        """How far the seeds' learned weights agree (`report.weights_agreement`)."""
        tables = [seed["weights"].get("objectives", {}) for seed in self.report["seeds"]]
        return weights_agreement(self.report["method"], tables)

    @property
    def is_control(self) -> bool:
        """Whether its learned weights were shuffled among the objectives."""
        return self.config.meta.control == "shuffled"

    def scores(self, split: str, metric: str) -> dict[int, float]:
        """Seed → score; empty where one of the seeds has none."""
        found = {s["seed"]: s.get(split) for s in self.report["seeds"]}
        if any(score is None or metric not in score for score in found.values()):
            return {}
        return {seed: score[metric] for seed, score in found.items() if score}

    def cost(self, name: str) -> float:
        """Mean over seeds of an entry of ``cost``, or of ``seconds``."""
        return stats.fmean(
            s["seconds"] if name == "seconds" else s["cost"][name] for s in self.report["seeds"]
        )

    def folder_of(self, seed: int) -> Path:
        """Where a seed's files lie.

        :raises RunError: where the run has no such seed.
        """
        if seed not in self.folders:
            known = ", ".join(map(str, self.folders))
            raise RunError(f"{self.path} has no seed {seed}; it has {known}")
        return self.folders[seed]

    def predictions(self, seed: int) -> list[dict[str, Any]]:
        """The lines of a seed's ``predictions.jsonl``, one a test row; none where the task has no test split.

        :raises RunError: where a line is no JSON object.
        """
        return predictions_in(self.folder_of(seed) / "predictions.jsonl")

    def only(self, seeds: Iterable[int]) -> FinishedRun:
        """The same run as if it had these of its seeds alone."""
        kept = set(seeds)
        own = [seed for seed in self.report["seeds"] if seed["seed"] in kept]
        return _with_seeds(self, own)


def predictions_in(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``predictions.jsonl``; none where there is no such file.

    :raises RunError: where a line is no JSON object.
    """
    if not path.is_file():
        return []
    rows = json_lines(path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            found = str(row)[:40]
            raise RunError(f"{path}:{number} is damaged: expected an object, found {found}")
    return rows


def read_against(directory: Path) -> dict[str, Any]:
    """``against.json`` of a run: ``directory``, the name of the baseline's, which lies beside the run's, ``baseline``,
    its method, and once both are finished the answer (`answer.helped`). Empty where there is no such file.

    :raises RunError: where it is damaged.
    """
    return _read_beside(directory / AGAINST, "baseline")


def read_control(directory: Path) -> dict[str, Any]:
    """``control.json`` of a run whose control is finished: ``directory``, the name of the control's, ``control``, its
    kind, how the run compares with it (`answer.helped`), and ``agreement``, how far the seeds of either agree on the
    weights (`compare.agreements`). Empty where there is no such file.

    :raises RunError: where it is damaged.
    """
    return _read_beside(directory / CONTROL, "control", "said", "agreement")


def _read_beside(path: Path, *names: str) -> dict[str, Any]:
    """What a run knows of one trained beside it: ``directory``, a bare name, and further texts of these names.

    :raises RunError: where something is missing or of another kind.
    """
    if not path.is_file():
        return {}
    try:
        found = json_of(path.read_text(encoding="utf-8"))
        place = found["directory"]
        whole = all(isinstance(found[name], str) for name in ("directory", *names))
        whole = whole and Path(place).name == place
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise RunError(
            f"{path} is damaged: expected an object with `directory`, a name, and "
            f"{', '.join(f'`{name}`' for name in names)}"
        )
    return dict(found)


def read_run(path: Path) -> FinishedRun:
    """A finished run; or, of a folder that is none itself, the finished runs in its folders ``seed-*`` as one, where
    they differ in nothing but their seeds.

    :raises RunError: where there is no run, an unfinished or a damaged one, or one of another version.
    """
    if not path.is_dir():
        raise RunError(
            f"{path} is no run directory; expected a folder that `aang run --out` has made"
        )
    if not any((path / name).exists() for name in ("report.json", "config.toml")):
        parts = sorted(place.parent for place in path.glob(f"{seed_folder('*')}/config.toml"))
        if parts:
            return joined(path, [_read_one(part) for part in parts])
    return _read_one(path)


def joined(path: Path, runs: Sequence[FinishedRun]) -> FinishedRun:
    """Runs of one configuration as one run with all their seeds.

    :param path: the folder that they lie in, whose name the whole gets.
    :raises RunError: where their settings differ, or two have a seed in common.
    """
    first = runs[0]
    blank = attrs.evolve(first.config, seeds=(0,))
    strangers = [r.path.name for r in runs if attrs.evolve(r.config, seeds=(0,)) != blank]
    if strangers:
        raise RunError(
            f"{path} holds runs with other settings than {first.path.name} ({', '.join(strangers)}); expected runs "
            "that differ in their seeds alone. Name the runs themselves"
        )
    count = Counter(seed for run in runs for seed in run.seeds)
    if twice := [str(seed) for seed, times in count.items() if times > 1]:
        raise RunError(f"{path} holds seed {', '.join(twice)} twice; take one of the runs away")
    seeds = sorted((s for run in runs for s in run.report["seeds"]), key=lambda s: s["seed"])
    folders = {seed: folder for run in runs for seed, folder in run.folders.items()}
    return _with_seeds(attrs.evolve(first, path=path, name=path.name, folders=folders), seeds)


def _with_seeds(run: FinishedRun, seeds: Sequence[Mapping[str, Any]]) -> FinishedRun:
    """:param seeds: what its report has of the seeds; `FinishedRun.folders` knows them."""
    reports = [seed_report(seed) for seed in seeds]
    report = {
        **run.report,
        "seeds": list(seeds),
        "summary": summary_of(reports, run.report["metric"]),
        "weights": mean_weights(reports),
    }
    config = attrs.evolve(run.config, seeds=tuple(seed.seed for seed in reports))
    return attrs.evolve(run, report=report, config=config)


def _read_one(path: Path) -> FinishedRun:
    report = read_report(path)
    config = path / "config.toml"
    if not config.is_file():
        raise RunError(f"{path} is damaged: it has no config.toml, so its settings are unknown")
    numbers = [seed["seed"] for seed in report["seeds"]]
    return FinishedRun(
        path=path,
        name=path.name,
        report=report,
        config=load_config(config),
        folders={n: seed_directory(path, numbers, n) for n in numbers},
    )


def read_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Finished runs with names that tell them apart; the faults of all are named at once.

    :raises RunError: as in `read_run`, or where a directory is given twice.
    """
    faults, runs = [], []
    for path in paths:
        try:
            runs.append(read_run(path))
        except RunError as fault:
            faults.append(str(fault))
    if faults:
        raise RunError(one_message(faults, "runs that cannot be compared"))
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RunError(
            "the same run directory is given twice; a run cannot be compared with itself"
        )
    if len({run.name for run in runs}) < len(runs):
        runs = [attrs.evolve(run, name=str(run.path)) for run in runs]
    return runs


def model_named(name: str) -> str:
    """A model by its name or folder, or the folder of the model that a finished run has left.

    Of a run with several seeds it is the model of the seed with the best score on dev.

    :returns: a hub id as it is; else an existing folder.
    :raises RunError: where a path leads nowhere, or to a folder that is neither a model nor a finished run.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise RunError(
                "there is no such folder; give a model's folder, a hub id or a finished run"
            )
        return name
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return str(folder)
    try:
        run = read_run(path)
    except RunError as cause:
        raise RunError(f"the folder holds neither a model nor a finished run: {cause}") from cause
    scores = run.scores("dev", run.report["metric"])
    best = max(scores, key=lambda seed: scores[seed]) if scores else run.seeds[0]
    model = run.folder_of(best) / "model"
    if not (model / "config.json").is_file():
        raise RunError(f"{model} is missing; the run was moved or pruned")
    return str(model)
