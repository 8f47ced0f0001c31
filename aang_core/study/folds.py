"""Cross-validation for few labels: every labelled row is test once, and a final model is trained on all of them.

::

    OUT/folds.toml, folds.json    the settings, and the results
    OUT/data/fold-1 …             the rows of each fold as a task; ``data/final``: all of them
    OUT/fold-1 …, OUT/final       a run directory each
    OUT/weights.json              the objectives' weights, averaged over the folds

A fold's test part is one K-th of the rows, by class; its dev is cut from the rest. Equal texts stay together. Test rows
are read once, each by the one model that has not seen them, so the pooled score covers all labelled rows. The final
model has no test score of its own, because it has seen every row. It trains for as many steps as the folds chose
(the median of their best steps, the higher of two), with the weights that they learned, and chooses nothing by itself.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from aang_core.analysis.answer import standard_error_of
from aang_core.config.file import dump_config
from aang_core.config.settings import RunConfig
from aang_core.data.duplicates import repeats_together
from aang_core.data.labels import shown_names
from aang_core.data.metrics import score, standard_error
from aang_core.data.spec import HF, LABEL
from aang_core.data.splits import SHARE, labels_together, pooled, split_rows
from aang_core.data.task import Task
from aang_core.errors import ConfigError, RunError, TaskError
from aang_core.registry.registry import Registry
from aang_core.rundir.directory import JobDirectory
from aang_core.rundir.finished import FinishedRun, read_run
from aang_core.rundir.report import mean_table, write_json
from aang_core.study.run import run_trials
from aang_core.study.selected.experiment import write_task
from aang_core.study.trials.pool import StudyCallback, in_processes
from aang_core.study.trials.trial import Trial
from aang_core.train.callbacks import Callback
from aang_core.train.finish.race import entrants
from aang_core.train.finish.refit import ends_with_probe, length_of, settled, with_numbers
from aang_core.train.resolve import ResolvedRun, resolve

SCHEMA = 1
_FINAL = "final"
_KINDS = ("class", "regression")


def cross_validate(
    config: RunConfig,
    folds: int,
    out: Path,
    registry: Registry,
    *,
    final: bool = True,
    resume: bool = False,
    jobs: int = 1,
    callback: Callback | None = None,
) -> dict[str, Any]:
    """Train on all but one K-th of the labelled rows, K times; the same as ``aang run --folds``.

    :param folds: K, at least 2. :param out: a new folder, or with `resume` the one to continue in.
    :param final: whether to train a final model on all rows. :param jobs: folds at a time.
    :param callback: follows each run if `jobs` is 1; a `StudyCallback` follows all of them in any case.
    :returns: what ``folds.json`` holds: the pooled ``score`` with its ``standard_error`` over ``rows``, each fold, the
        ``final`` model (None where there is none), and ``said``.
    :raises ConfigError: for settings that fix the splits otherwise. :raises TaskError: for too few rows.
    :raises RunError: where `out` holds something else, or a fold in another process fails.
    """
    _check(config, folds, jobs)
    resolved = resolve(config, registry)
    if final and resolved.weighting is not None and resolved.weighting.record.forks:
        raise ConfigError(
            f'meta.rule = "{config.meta.rule}" merges as dev prefers, and the final model has no dev; leave the final '
            "model out (--no-final), or choose another rule"
        )
    task = resolved.task
    parts = _parts(task, folds)
    out = out.absolute()
    place = JobDirectory(
        path=out,
        what="cross-validation",
        mark="folds.toml",
        text=f"folds = {folds}\n{dump_config(config)}",
    )
    with place.taken(resume):
        trials = [_fold(config, task, out, part, number) for number, part in enumerate(parts, 1)]
        _carried_out(trials, registry, callback, jobs)
        runs = [read_run(trial.directory) for trial in trials]
        found = _result(task, runs)
        if final:
            last = _final(config, resolved, out, runs, callback or Callback())
            _carried_out([last], registry, callback, 1)
            model = {"directory": str(last.directory), "steps": last.config.training.max_steps}
            found = {**found, "final": model}
        found["said"] = _said(found)
        write_json(out / "folds.json", found)
    return found


def _check(config: RunConfig, folds: int, jobs: int) -> None:
    if folds < 2:
        raise ConfigError(f"folds must be at least 2 (got {folds})")
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1 (got {jobs})")
    fixed = {name: getattr(config, name) for name in ("train_rows", "dev_rows", "split_anew")}
    if named := [name for name, value in fixed.items() if value]:
        raise ConfigError(f"folds make the splits themselves; leave out {' and '.join(named)}")


def _parts(task: Task, folds: int) -> list[dict[str, list[int]]]:
    """The rows of train, dev and test of each fold, as numbers in the pool of the labelled rows."""
    if task.kind not in _KINDS:
        raise TaskError(
            f"folds: expected a task of the kind {' or '.join(_KINDS)}, found {task.kind!r}"
        )
    pool = pooled(task)
    labels = pool[LABEL][:]
    groups = repeats_together([pool[name][:] for name in pool.column_names if name != LABEL])
    keys = labels_together(task.kind, labels, groups)
    counts = Counter(keys) if task.kind == "class" else Counter()
    small = [name for i, name in enumerate(task.label_names) if counts[i] < 2]
    if small or len(groups) < 2 * folds:
        short = f"; too few of {shown_names(small)}" if small else ""
        raise TaskError(
            f"{folds} folds need at least {2 * folds} labelled rows with different texts, and two of each class; task "
            f"{task.name!r} has {len(groups)}{short}. Label more, or take fewer folds"
        )
    generator = np.random.default_rng([folds, len(groups)])
    order = generator.permutation(len(groups)).tolist()
    if task.kind == "class":
        order.sort(key=keys.__getitem__)  # stable: dealt out by class, in a random order
    found = []
    for fold in range(folds):
        test = order[fold::folds]
        rest = sorted(set(order) - set(test))
        train, dev = split_rows(task.kind, [keys[g] for g in rest], [SHARE], generator)
        members = {"train": [rest[i] for i in train], "dev": [rest[i] for i in dev], "test": test}
        found.append(
            {name: sorted(r for g in part for r in groups[g]) for name, part in members.items()}
        )
    return found


def _written(task: Task, parts: Mapping[str, Sequence[int]], folder: Path) -> dict[str, Any]:
    """Write rows of the pool as a task; what a configuration says of it."""
    pool = pooled(task)
    write_task(attrs.evolve(task, splits=dict.fromkeys(parts, pool)), parts, folder)
    corpora = {
        name: str(path) if str(path).startswith(HF) else str(path.absolute())
        for name, path in task.external.items()
    }
    read = {"columns": {}, "unlabelled": "none", "drop_empty": False}  # as the written files are
    return {"task": str(folder), "external": corpora, **read}


def _fold(
    config: RunConfig, task: Task, out: Path, part: Mapping[str, Sequence[int]], number: int
) -> Trial:
    name = f"fold-{number}"
    own = _written(task, part, out / "data" / name)
    return Trial(
        configuration=name.replace("-", " "),
        config=attrs.evolve(config, **own),
        directory=out / name,
    )


def _final(
    config: RunConfig,
    resolved: ResolvedRun,
    out: Path,
    runs: Sequence[FinishedRun],
    callback: Callback,
) -> Trial:
    """The run on all rows, with the length and the weights of the folds."""
    task, parts = resolved.task, _parts(resolved.task, len(runs))
    rows = sorted(row for part in parts for row in part["test"])
    # the run wants a dev split, which here chooses nothing: there is one evaluation, at the end
    own = _written(task, {"train": rows, "dev": parts[0]["test"]}, out / "data" / _FINAL)
    kept = _winner(runs)
    seeds = [seed for run in runs for seed in run.report["seeds"]]
    if kept:
        seeds = [seed for seed in seeds if seed["race"]["kept"] == kept]
        config = entrants(resolved)[kept].config
        callback.on_remark(f"final: {kept}, which most folds kept")
    steps = length_of(config, [seed["best_step"] for seed in seeds])
    probes = [ends_with_probe(config, task.metric, with_numbers(s["evaluations"])) for s in seeds]
    most = 2 * sum(probes) > len(probes)
    config = settled(config, steps, _mean_weights(runs), out, most)
    final = attrs.evolve(config, seeds=config.seeds[:1])
    callback.on_remark(
        f"final: {len(rows)} rows, {steps} steps, the median of the folds'; its dev rows are some of those that it "
        "trains on, so its dev score and the audit's count of leaks say nothing"
    )
    return Trial(configuration=_FINAL, config=attrs.evolve(final, **own), directory=out / _FINAL)


def _winner(runs: Sequence[FinishedRun]) -> str:
    """The candidate that most seeds of most folds kept, the first of equal ones; empty where there was no race."""
    raced = [seed["race"]["kept"] for run in runs for seed in run.report["seeds"] if seed["race"]]
    return Counter(raced).most_common(1)[0][0] if raced else ""


def _mean_weights(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Of the objectives and λ, over the folds."""
    tables = [run.report["weights"] for run in runs]
    return {
        "objectives": mean_table([table["objectives"] for table in tables]),
        "end_task": statistics.fmean(table["end_task"] for table in tables),
    }


def _carried_out(
    trials: Sequence[Trial], registry: Registry, callback: Callback | None, jobs: int
) -> None:
    """Run the trials one after another, or in processes. Finished ones are kept.

    :raises RunError: of the first trial that failed in another process.
    """
    if jobs == 1:
        run_trials(trials, registry, callback)
        return
    study = callback if isinstance(callback, StudyCallback) else StudyCallback()
    waiting = [trial for trial in trials if not trial.is_finished]
    study.on_plan(trials, [trial for trial in trials if trial.is_finished])
    for outcome in in_processes(waiting, study, workers=jobs, halting=True):
        if outcome.error:
            raise RunError(f"{outcome.trial.name}: {outcome.error}")


def _result(task: Task, runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """Pooled over the folds, for each seed; the score is their mean, its error that of one seed.

    The metric is the one that people read first (`FinishedRun.headline`).
    """
    metric = next((run.headline for run in runs if run.headline != task.metric), task.metric)
    pools = [[row for run in runs for row in run.predictions(seed)] for seed in runs[0].seeds]
    judged = [_judged(task, metric, rows) for rows in pools]
    folds = [
        {
            "fold": number,
            "directory": str(run.path),
            "rows": len(run.predictions(run.seeds[0])),
            "score": statistics.fmean(run.scores("test", metric).values()),
            "best_step": [seed["best_step"] for seed in run.report["seeds"]],
        }
        for number, run in enumerate(runs, 1)
    ]
    gold = Counter(str(row["gold"]) for row in pools[0])
    return {
        "schema": SCHEMA,
        "task": task.name,
        "metric": metric,
        "rows": len(pools[0]),
        "score": statistics.fmean(each for each, _ in judged),
        "standard_error": statistics.fmean(error for _, error in judged),
        "majority": max(gold.values()) / len(pools[0]) if metric == "accuracy" else None,
        "seeds": {str(seed): each for seed, (each, _) in zip(runs[0].seeds, judged, strict=True)},
        "folds": folds,
        "final": None,
    }


def _judged(task: Task, metric: str, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The score of pooled answers, and its standard error by chance over these rows."""
    if task.kind == "regression":
        values = score("regression", [r["value"] for r in rows], [r["gold"] for r in rows])
        return values[metric], standard_error("regression", len(rows))
    place = {name: number for number, name in enumerate(task.label_names)}
    said, gold = ([place[row[key]] for row in rows] for key in ("label", "gold"))
    value = score("class", said, gold, len(place))[metric]
    return value, standard_error_of([(row["gold"], row["label"]) for row in rows], metric)


def _said(found: Mapping[str, Any]) -> str:
    """The score for people."""
    seeds = len(found["seeds"])
    several = f" of one of {seeds} seeds" if seeds > 1 else ""
    said = (
        f"{found['metric']} over all {found['rows']} labelled rows, each judged by a model that has not seen it: "
        f"{found['score']:.4f} ± {found['standard_error']:.4f} (standard error{several})"
    )
    if found["majority"] is not None:
        said += f"; always answering the commonest class gives {found['majority']:.4f}"
    return said
