"""Methods over several tasks. In: finished sweeps, one or more a task. Out: gains over a baseline, `compare_sweeps`.

A method is a configuration's name; it may have other settings on another task. Each gain is paired by seed, over the
seeds that both runs have. A task is judged by its own metric; accuracy and macro-F1 stand beside it. Scores are
fractions; every metric is better when larger.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from statistics import fmean
from typing import Any

import attrs
import numpy as np

from aang_core.analysis.compare import compare_runs
from aang_core.analysis.statistics import Chance, holm, resampled_means, sign_flip_test
from aang_core.config.schema import Anything, Integer, ListOf, Rule, Table, Text, faults_of
from aang_core.errors import RunError, did_you_mean, one_message
from aang_core.files import json_of
from aang_core.rundir.finished import FinishedRun, joined, read_run

OWN = "own"
"""The name under which each task's own metric stands."""
SHOWN = (OWN, "accuracy", "f1")
LEAST_TASKS = 5
"""Fewer tasks say nothing of others: with four that differ, a 95 % interval misses the truth in every fifth case."""
LEAST_SEEDS = 3
COSTS = ("tokens", "cpu_seconds")


@attrs.frozen(eq=False, kw_only=True)
class Method:
    """A configuration on one task.

    :param run: its finished seeds; None where there are none.
    :param missing: the seeds that its sweeps have planned and not finished.
    """

    run: FinishedRun | None
    missing: tuple[int, ...]


_Key = tuple[str, tuple[int, int] | None]
"""A task and its labels (``train_rows``, ``dev_rows``), which are None where nothing is finished."""

_Part = tuple[_Key, str, list[int], list[FinishedRun]]
"""What a sweep has of a configuration: its task, its name, the planned seeds, the finished runs."""

Tasks = Mapping[str, Mapping[str, Method]]
"""A task's name, for people → a configuration's name → what is there of it."""


def _form(**fields: Rule) -> Rule:
    return Table(fields, required=fields.keys(), others=Anything())


_RESULTS = _form(
    configurations=ListOf(_form(configuration=Text(), task=Text()), 1, unique=False),
    trials=ListOf(_form(configuration=Text(), seed=Integer(), directory=Text()), 1, unique=False),
)


def read_sweeps(paths: Sequence[Path]) -> Tasks:
    """The finished trials of sweeps, which may go on meanwhile, by task and configuration.

    Sweeps of one task are put together; one with another number of labels is another task.

    :raises RunError: where a directory is no sweep, is given twice or is damaged, or two have the same trial.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise RunError("the same sweep is given twice; name each once")
    faults: list[str] = []
    parts: list[_Part] = []
    for path in paths:
        try:
            parts += _read_sweep(path)
        except RunError as fault:
            faults.append(str(fault))
    if faults:
        raise RunError(one_message(faults, "sweeps that cannot be read"))
    known = {key for key, *_ in parts}
    planned: dict[_Key, dict[str, set[int]]] = {}
    done: dict[_Key, dict[str, list[FinishedRun]]] = {}
    for (task, labels), name, seeds, runs in parts:
        same = [key for key in known if key[0] == task and key[1] is not None]
        key = same[0] if labels is None and len(same) == 1 else (task, labels)
        planned.setdefault(key, {}).setdefault(name, set()).update(seeds)
        done.setdefault(key, {}).setdefault(name, []).extend(runs)
    names = _names(list(planned))
    return {
        names[key]: {
            name: _method(f"{name} on {names[key]}", seeds, done[key][name])
            for name, seeds in methods.items()
        }
        for key, methods in planned.items()
    }


def _method(name: str, planned: set[int], runs: Sequence[FinishedRun]) -> Method:
    """:raises RunError: where the runs' settings differ, or two have the same seed."""
    if not runs:
        return Method(run=None, missing=tuple(sorted(planned)))
    run = attrs.evolve(joined(runs[0].path.parent, runs), name=name)
    return Method(run=run, missing=tuple(sorted(planned - set(run.seeds))))


def _read_sweep(path: Path) -> Iterator[_Part]:
    """Each of its configurations.

    :raises RunError: where it is no sweep, or damaged.
    """
    file = path / "results.json"
    if not file.is_file():
        raise RunError(
            f"{path} is no sweep: it has no results.json; expected a folder that `aang sweep --out` has made"
        )
    try:
        found = json_of(file.read_text("utf-8"))
    except (OSError, ValueError) as cause:
        raise RunError(f"{file} is damaged: {cause}") from cause
    if wrong := faults_of(_RESULTS, found):
        raise RunError(f"{file} holds no results of a sweep: {'; '.join(wrong[:3])}")
    runs: dict[str, list[FinishedRun]] = {}
    seeds: dict[str, list[int]] = {}
    for trial in found["trials"]:
        place = path / trial["directory"]
        try:
            inside = place.resolve().is_relative_to(path.resolve())
            done = inside and (place / "report.json").is_file()
        except (OSError, ValueError):  # no name that a file system knows
            inside = False
        if not inside:
            raise RunError(
                f"{file} is damaged: {trial['directory'][:80]!r} does not lie in the sweep"
            )
        seeds.setdefault(trial["configuration"], []).append(trial["seed"])
        if done:
            runs.setdefault(trial["configuration"], []).append(read_run(place))
    for row in found["configurations"]:
        name, task = row["configuration"], row["task"]
        own = runs.get(name, [])
        labels = (own[0].config.train_rows, own[0].config.dev_rows) if own else None
        yield (task, labels), _method_name(name, task), seeds.get(name, []), own


def _method_name(configuration: str, task: str) -> str:
    """Without what a sweep over tasks or numbers of labels has added, since each of them is a task of its own."""
    added = rf", (task={re.escape(task)}|train_rows=\d+|dev_rows=\d+)(?=,|$)"
    return re.sub(added, "", configuration)


def _names(keys: Sequence[_Key]) -> dict[_Key, str]:
    """A name for each task: the last part of its path, and what else tells it from the others."""
    found = {}
    for task, labels in keys:
        short = PurePath(task).name or task
        same = {other for other, _ in keys if (PurePath(other).name or other) == short}
        name = short if len(same) == 1 else task
        if sum(other == task for other, _ in keys) > 1:
            train, dev = labels or ("unknown", 0)
            name += f", {train or 'all'} labels" + (f" and {dev} in dev" if dev else "")
        found[task, labels] = name
    return found


def compare_sweeps(
    paths: Sequence[Path], baselines: Sequence[str], *, draws: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """The gain of every method over a baseline, on each task and on the mean over tasks.

    :param baselines: of several, a task takes the one with the best mean on dev over the seeds that they share. None
        of them is among the methods.
    :param draws: of the bootstrap. :param seed: of its generator, and of the sign-flip test's.
    :return: ``baselines``, ``draws``, ``seed``; ``tasks``: a row a task and method (`_row`); ``methods``: one a method
        over its tasks (`_method_row`); ``chosen``: task → its baseline's name and the dev means of all; ``incomplete``:
        the task, method and seeds that are planned and not finished; ``remarks``. Plain values.
    :raises RunError: as `read_sweeps`; where no sweep has such a baseline, or no method shares a seed with it; where
        runs cannot be compared (`compare.compare_runs`): all that differs.
    """
    tasks = read_sweeps(paths)
    known = dict.fromkeys(name for methods in tasks.values() for name in methods)
    if unknown := [name for name in baselines if name not in known]:
        faults = [f"no sweep has a run named {n!r}{did_you_mean(n, known)}" for n in unknown]
        raise RunError(one_message(faults, "unknown baselines"))
    chosen = {
        task: found for task, methods in tasks.items() if (found := _chosen(methods, baselines))
    }
    rows = _rows(tasks, baselines, chosen)
    if not rows:
        raise RunError(
            f"no method shares a finished seed with {' or '.join(baselines)} on any task; let the sweeps go on"
        )
    names = dict.fromkeys(row["method"] for row in rows)
    methods = [_method_row([r for r in rows if r["method"] == n], draws, seed) for n in names]
    for metric in SHOWN:
        own = [row["metrics"][metric] for row in methods if metric in row["metrics"]]
        for figures, p_value in zip(own, holm([f["p_value"] for f in own]), strict=True):
            figures["p_holm"] = p_value
    return {
        "baselines": list(baselines),
        "draws": draws,
        "seed": seed,
        "tasks": rows,
        "methods": methods,
        "chosen": chosen,
        "incomplete": [
            {"task": task, "method": name, "missing": list(method.missing)}
            for task, own in tasks.items()
            for name, method in own.items()
            if method.missing
        ],
        "remarks": list(_remarks(tasks, rows, methods, chosen, len(baselines) > 1)),
    }


def _rows(
    tasks: Tasks, baselines: Sequence[str], chosen: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row a task and method that shares a seed with the task's baseline.

    :raises RunError: where runs cannot be compared: all that differs.
    """
    rows, faults = [], []
    for task, found in chosen.items():
        baseline = tasks[task][found["baseline"]].run
        for name, method in tasks[task].items():
            if name in baselines or baseline is None or method.run is None:
                continue
            if not (shared := set(method.run.seeds) & set(baseline.seeds)):
                continue
            try:
                rows.append(_row(task, name, baseline.only(shared), method.run.only(shared)))
            except RunError as fault:
                faults.append(str(fault))
    if faults:
        raise RunError(one_message(faults, "runs that cannot be compared"))
    return rows


def _chosen(methods: Mapping[str, Method], baselines: Sequence[str]) -> dict[str, Any] | None:
    """The baseline that dev prefers: ``baseline``, ``dev``, the means of all, and ``seeds``, which they share.

    None where none has a finished seed, or several share none.
    """
    runs = {name: methods[name].run for name in baselines if name in methods}
    found = {name: run for name, run in runs.items() if run is not None}
    if not found or not (shared := set.intersection(*(set(run.seeds) for run in found.values()))):
        return None
    means = {}
    for name, run in found.items():
        scores = run.scores("dev", run.report["metric"])
        means[name] = fmean(scores[seed] for seed in shared)
    best = max(means, key=lambda name: means[name])
    return {"baseline": best, "dev": means, "seeds": sorted(shared)}


def _row(task: str, name: str, baseline: FinishedRun, run: FinishedRun) -> dict[str, Any]:
    """One method on one task: ``task``, ``method``, ``baseline``, ``metric`` (the task's own), ``split``, ``seeds``,
    ``labels`` of train and dev, ``metrics``: for each of `SHOWN` that the task has, what `compare.compare_runs` says,
    with ``deltas`` by seed and the ``baseline`` mean; ``verdict`` by the task's own (``win``, ``loss``: the interval
    lies above, below 0; else ``tie``; None for one seed, which says nothing of others); ``tokens``, ``cpu_seconds`` and
    the baseline's.
    """
    compared = compare_runs([baseline, run])
    first, second = compared.rows
    own = run.report["metric"]
    metrics = {}
    for shown in SHOWN:
        metric = own if shown == OWN else shown
        if metric not in second["metrics"]:
            continue
        before, after = (row["metrics"][metric] for row in (first, second))
        deltas = {seed: after["values"][seed] - before["values"][seed] for seed in after["values"]}
        metrics[shown] = {**after, "deltas": deltas, "baseline": before["mean"]}
    interval = metrics[OWN]["interval"]
    verdict = None
    if len(run.seeds) > 1:
        low, high = interval or (0.0, 0.0)
        verdict = "win" if low > 0 else "loss" if high < 0 else "tie"
    return {
        "task": task,
        "method": name,
        "baseline": baseline.name.removesuffix(f" on {task}"),
        "metric": own,
        "split": compared.split,
        "seeds": sorted(run.seeds),
        "labels": {
            "train": run.report["seeds"][0].get("train_rows"),
            "dev": run.config.dev_rows or run.report.get("audit", {}).get("splits", {}).get("dev"),
        },
        "metrics": metrics,
        "verdict": verdict,
        **{
            f"{of}{cost}": row[cost]
            for of, row in (("", second), ("baseline_", first))
            for cost in COSTS
        },
    }


def _method_row(rows: Sequence[Mapping[str, Any]], draws: int, seed: int) -> dict[str, Any]:
    """One method over its tasks: ``method``, ``tasks``, ``pairs``, ``verdicts`` (counts), the mean costs, and
    ``metrics``, each over the tasks that have it (`_mean_gain`).
    """
    verdicts = Counter(row["verdict"] for row in rows)
    metrics = {}
    for metric in SHOWN:
        if own := [row["metrics"][metric] for row in rows if metric in row["metrics"]]:
            metrics[metric] = _mean_gain(own, draws, seed)
    costs = [f"{of}{cost}" for of in ("", "baseline_") for cost in COSTS]
    return {
        "method": rows[0]["method"],
        "tasks": [row["task"] for row in rows],
        "pairs": sum(len(row["seeds"]) for row in rows),
        "verdicts": {name: verdicts[name] for name in ("win", "loss", "tie")},
        "metrics": metrics,
        **{cost: fmean(row[cost] for row in rows) for cost in costs},
    }


def _mean_gain(found: Sequence[Mapping[str, Any]], draws: int, seed: int) -> dict[str, Any]:
    """The mean over tasks of one metric's gain: ``delta`` and three 95 % intervals, of what would have come out with
    other seeds (``interval_seeds``, None where a task has fewer than `LEAST_SEEDS`), with other seeds and test texts
    (``interval``, by `statistics.Chance`, None where a task has a single seed) and with other tasks
    (``interval_tasks``, None below `LEAST_TASKS`); the first and the last by `statistics.resampled_means`.
    ``p_value``, by `statistics.sign_flip_test`; ``detectable``, the true gain that ``interval`` would tell from 0;
    ``tasks``, how many.
    """
    deltas = [list(figures["deltas"].values()) for figures in found]

    def resampled(enough: bool, other_tasks: bool) -> list[float] | None:
        if not enough:
            return None
        generator = np.random.default_rng(seed)
        means = resampled_means(deltas, generator, other_tasks=other_tasks, draws=draws)
        low, high = np.quantile(means, [0.025, 0.975])
        return [float(low), float(high)]

    chances = [
        Chance(
            seeds=figures["errors"]["seeds"] ** 2,
            freedom=max(1, len(own) - 1),
            texts=figures["errors"]["texts"] ** 2,
        )
        for figures, own in zip(found, deltas, strict=True)
    ]
    chance = Chance.mean_of(chances) if min(map(len, deltas)) > 1 else Chance()
    delta = fmean(fmean(own) for own in deltas)
    return {
        "tasks": len(found),
        "delta": delta,
        "interval_seeds": resampled(min(map(len, deltas)) >= LEAST_SEEDS, other_tasks=False),
        "interval": chance.interval(delta),
        "interval_tasks": resampled(len(found) >= LEAST_TASKS, other_tasks=True),
        "p_value": sign_flip_test(deltas, np.random.default_rng(seed)),
        "detectable": chance.detectable(),
    }


def _remarks(
    tasks: Tasks,
    rows: Sequence[Mapping[str, Any]],
    methods: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Mapping[str, Any]],
    several: bool,
) -> Iterator[str]:
    """What has to be said beside the numbers.

    :param several: whether tasks choose among several baselines.
    """
    for task, own in tasks.items():
        if lacking := [(name, method.missing) for name, method in own.items() if method.missing]:
            seeds = "; ".join(
                f"{name}: seed {', '.join(map(str, found))}" for name, found in lacking
            )
            yield f"not finished on {task}: {seeds}. Pairs of finished seeds alone are compared"
    if left := [task for task in tasks if task not in chosen]:
        yield f"left out, because no baseline has finished a seed there: {', '.join(left)}"
    for task in dict.fromkeys(row["task"] for row in rows):
        if several:
            found = chosen[task]
            means = ", ".join(f"{name} {100 * mean:.1f}" for name, mean in found["dev"].items())
            over = f"{len(found['seeds'])} seed{'s' if len(found['seeds']) > 1 else ''}"
            yield f"baseline on {task}, by dev over {over} ({means}): {found['baseline']}"
    if labels := {row["task"]: row["labels"] for row in rows if all(row["labels"].values())}:
        counts = ", ".join(f"{task} {n['train']} + {n['dev']}" for task, n in labels.items())
        yield f"labels (train + dev): {counts}"
    everywhere = max(len(row["tasks"]) for row in methods)
    for row in methods:
        if len(row["tasks"]) < everywhere:
            yield f"{row['method']} has run on {len(row['tasks'])} of {everywhere} tasks: its mean is over those alone"
    if few := dict.fromkeys(row["task"] for row in rows if len(row["seeds"]) < LEAST_SEEDS):
        yield (
            f"fewer than {LEAST_SEEDS} shared seeds on {', '.join(few)}: no interval of the mean over other seeds; one "
            "seed alone is no win or loss, and its interval is over test texts"
        )
    if everywhere < LEAST_TASKS:
        yield f"fewer than {LEAST_TASKS} tasks say nothing of other tasks, so there is no interval for them"
    if dev := dict.fromkeys(row["task"] for row in rows if row["split"] == "dev"):
        yield f"scores on dev, which also chose the checkpoints, because test has no labels: {', '.join(dev)}"
