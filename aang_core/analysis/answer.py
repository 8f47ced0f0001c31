"""The two questions after a run: how good is the model, and did the objectives help? In: finished runs.

Chance enters a difference twice: through the seeds, and through the examples that test happens to hold. An interval
over several seeds counts both (`statistics.Chance`), that of one seed the examples alone, paired, because both models
answer the same ones. The difference that a study could have seen comes from the same variances.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aang_core.analysis.compare import compare_runs
from aang_core.analysis.detectability import POINTS, could_show
from aang_core.analysis.levels import said as levels_said
from aang_core.analysis.statistics import macro_f1_standard_error
from aang_core.config.settings import WITHOUT_OBJECTIVES
from aang_core.data.metrics import confusion_of, score
from aang_core.rundir.finished import FinishedRun
from aang_core.rundir.report import spread


def score_of(run: FinishedRun) -> dict[str, Any]:
    """A run's score on test (dev where test has no labels), for people and programs.

    :return: ``metric`` (`FinishedRun.headline`), ``split``, ``mean`` and ``std`` over ``seeds``, ``rows`` of the split,
        ``standard_error`` of a seed's score by chance over these rows (classes only, else None), ``majority``:
        the ``label`` that train holds most often and the ``score`` of always answering it (classes only, else None),
        and ``said``.
    """
    metric, split = run.headline, run.split
    values = list(run.scores(split, metric).values())
    answers = [_classes(run, seed) for seed in run.seeds] if split == "test" else []
    known = bool(answers) and all(answers) and metric in POINTS
    audit = run.report.get("audit", {})
    found = {
        "metric": metric,
        "split": split,
        "seeds": len(values),
        **spread(values),
        "rows": len(answers[0]) if known else audit.get("splits", {}).get(split),
        "standard_error": _mean([standard_error_of(a, metric) for a in answers]) if known else None,
        "majority": _majority(answers, metric, audit) if known else None,
    }
    said = _score_said(found)
    if metric != (own := run.report["metric"]):
        mean = _mean(list(run.scores(split, own).values()))
        said += f"; {own} {mean:.4f} (classes are unbalanced: macro-F1 comes first)"
    if by_level := levels_said(answers):
        said += f"; {by_level}"
    return {**found, "said": said}


def _classes(run: FinishedRun, seed: int) -> list[tuple[str, str]]:
    """(true, answered) class of each test row; empty for other kinds of tasks."""
    rows = run.predictions(seed)
    if any(not isinstance(row.get("gold"), str) or "label" not in row for row in rows):
        return []
    return [(row["gold"], row["label"]) for row in rows]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _names(*answers: Sequence[tuple[str, str]]) -> list[str]:
    return sorted({name for rows in answers for pair in rows for name in pair})


def standard_error_of(answers: Sequence[tuple[str, str]], metric: str) -> float:
    """Of the accuracy or macro-F1 of (true, answered) classes, by chance over these rows."""
    if metric == "accuracy":
        share = _mean([gold == label for gold, label in answers])
        return math.sqrt(share * (1 - share) / len(answers))
    rows = [{"gold": gold, "label": label} for gold, label in answers]
    return macro_f1_standard_error(confusion_of(rows, _names(answers)).tolist())


def _majority(
    answers: Sequence[Sequence[tuple[str, str]]], metric: str, audit: Mapping[str, Any]
) -> dict[str, Any] | None:
    counts = audit.get("labels", {}).get("train")
    if not counts:
        return None
    label, names = max(counts, key=counts.__getitem__), list(counts)
    place = {name: number for number, name in enumerate(names)}
    scores = []
    for rows in answers:
        gold = [place[true] for true, _ in rows]
        scores.append(score("class", [place[label]] * len(gold), gold, len(names))[metric])
    return {"label": label, "score": _mean(scores)}


def _score_said(found: Mapping[str, Any]) -> str:
    error, rows, majority = found["standard_error"], found["rows"], found["majority"]
    said = f"{found['metric']} on {found['split']}: {found['mean']:.4f}"
    if found["std"] is not None:
        said += f" ± {found['std']:.4f} (mean ± std of {found['seeds']} seeds"
        said += f"; standard error of one by its {rows} rows: {error:.4f})" if error else ")"
    elif error is not None:
        said += f" ± {error:.4f} (standard error, {rows} rows)"
    elif rows:
        said += f" ({rows} rows)"
    if majority:
        said += f"; always answering {majority['label']!r} gives {majority['score']:.4f}"
    return said


def helped(baseline: FinishedRun, run: FinishedRun) -> dict[str, Any]:
    """Whether a run is better than its baseline, plain fine-tuning on the same seeds.

    :return: ``verdict`` (``helped``, ``hurt`` or ``unclear``), ``metric``, ``split``, ``delta`` (run − baseline, mean
        over ``seeds``), ``interval`` (95 %; None where it cannot be known), ``detectable``: the true difference whose
        interval would have left out zero in four of five cases (`statistics.Chance`; None likewise),
        ``p_value`` (paired t-test over seeds, or for one seed of classes McNemar's exact test over test rows), both
        ``scores``, ``said`` and ``next``, what to do.
    :raises RunError: where the two cannot be compared (`compare.compare_runs`).
    """
    found = gain(baseline, run)
    return {name: value for name, value in found.items() if name not in ("deltas", "metrics")}


def gain(baseline: FinishedRun, run: FinishedRun) -> dict[str, Any]:
    """What `helped` says, and what the page shows beside it.

    :return: with ``deltas``, the differences of the seeds, and ``metrics``: ``delta``, ``interval``, ``detectable``,
        ``p_value`` and ``deltas`` of every metric, the one that comes first before the others.
    :raises RunError: as `helped`.
    """
    compared = compare_runs([baseline, run])
    first, second = compared.rows
    metrics = {
        name: _difference(baseline, run, compared.split, first["metrics"][name], figures)
        for name, figures in second["metrics"].items()
    }
    own = metrics[compared.metric]
    verdict, interval = "unclear", own["interval"]
    if interval is not None and (interval[0] > 0 or interval[1] < 0):
        verdict = "helped" if interval[0] > 0 else "hurt"
    found = {
        "verdict": verdict,
        "metric": compared.metric,
        "split": compared.split,
        "seeds": len(own["deltas"]),
        **own,
        "scores": {run.name: second["mean"], baseline.name: first["mean"]},
        "metrics": metrics,
    }
    plain = first["method"] == "finetune" and second["method"] not in WITHOUT_OBJECTIVES
    names = None if plain else (run.name, baseline.name)
    return {**found, "said": _helped_said(found, names), "next": _next(verdict, baseline, plain)}


def _difference(
    baseline: FinishedRun,
    run: FinishedRun,
    split: str,
    first: Mapping[str, Any],
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """``delta``, ``interval``, ``detectable``, ``p_value`` and ``deltas`` by seed under one metric.

    :param first, own: what `compare_runs` says of either under this metric.
    """
    deltas = [own["values"][seed] - first["values"][seed] for seed in own["values"]]
    p_value = own["p_value"]
    if len(deltas) == 1 and split == "test" and own["interval"]:
        p_value = _mcnemar(_classes(baseline, run.seeds[0]), _classes(run, run.seeds[0]))
    return {
        "delta": own["delta"],
        "interval": own["interval"],
        "detectable": could_show(own["detectable"]),
        "p_value": p_value,
        "deltas": deltas,
    }


def _mcnemar(first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]]) -> float | None:
    """Exact two-sided p of McNemar's test: of the rows that one model alone has right, how many are whose."""
    from scipy.stats import binomtest

    pairs = list(zip(first, second, strict=True))
    won = sum(a[0] != a[1] and b[0] == b[1] for a, b in pairs)
    lost = sum(a[0] == a[1] and b[0] != b[1] for a, b in pairs)
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else None


def amount(value: float, metric: str, signed: bool = False) -> str:
    """A difference for people: points with one digit, or three digits of a correlation or an error."""
    number = 100 * value if metric in POINTS else value
    digits = 1 if metric in POINTS else 3
    return f"{number:{'+' if signed else ''}.{digits}f}"


def _helped_said(found: Mapping[str, Any], names: tuple[str, str] | None = None) -> str:
    """:param names: of the run and of a baseline that is no plain fine-tuning."""
    metric, interval, could = found["metric"], found["interval"], found["detectable"]
    unit = f"points of {metric}" if metric in POINTS else f"of {metric}"
    seeds = f"{found['seeds']} seed{'s' if found['seeds'] > 1 else ''}"
    sure = seeds
    if interval is not None:
        low, high = (amount(end, metric) for end in interval)
        sure = f"95 % interval {low} to {high}, {seeds}"
    numbers = f"{amount(found['delta'], metric, signed=True)} {unit} on {found['split']} ({sure})"
    if found["verdict"] != "unclear":
        better = "better" if found["verdict"] == "helped" else "worse"
        said = (
            f"{names[0]} is {better} than {names[1]}"
            if names
            else f"The objectives {found['verdict']}"
        )
        return f"{said}: {numbers}"
    return f"No difference can be seen: {numbers}{_could_said(could, metric, found['split'])}"


def _could_said(could: float | None, metric: str, split: str) -> str:
    """:param could: what the study could have seen; None where that is unknown."""
    if not could:
        return ""
    if metric in POINTS and could >= 1:  # no two scores are further apart than that
        return f"; so few seeds and {split} rows can hardly show any difference"
    points = " points" if metric in POINTS else ""
    return f"; this study could have seen {amount(could, metric)}{points}"


def _next(verdict: str, baseline: FinishedRun, plain: bool) -> str:
    """What to do; `plain`: whether the baseline is plain fine-tuning, so that the objectives are judged."""
    if not plain:
        return (
            ""
            if verdict != "unclear"
            else "more seeds or a larger test split to see smaller differences"
        )
    if verdict == "helped":
        return "keep the objectives; more seeds make the interval narrower"
    if verdict == "hurt":
        return f"use plain fine-tuning ({baseline.path}), or try another space (`aang list-spaces`)"
    return (
        "more seeds or a larger test split to see smaller differences; more labels or another space "
        f"(`aang list-spaces`) to make a larger one; or plain fine-tuning, which costs less ({baseline.path})"
    )
