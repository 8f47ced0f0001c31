"""Compare finished runs on the same seeds: paired tests, intervals, the smallest visible difference, and the cost.

Scores are fractions. The first run is the baseline, and a difference is always "this run minus the baseline".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from aang_core.analysis.detectability import chance_of, detectable
from aang_core.analysis.statistics import paired_t_test
from aang_core.errors import RunError, one_message
from aang_core.rundir.finished import FinishedRun
from aang_core.rundir.report import spread

COST_GAP = 0.1
"""Runs whose tokens differ by more than this share are not compared at equal cost, and a remark says so."""


@attrs.frozen(eq=False, kw_only=True)
class Comparison:
    """:param rows: one a run, of plain values (`compare_runs`).
    :param split: what the scores are on.
    :param remarks: what has to be said beside the numbers.
    """

    split: str
    metric: str
    rows: tuple[dict[str, Any], ...]
    remarks: tuple[str, ...]


def compare_runs(runs: Sequence[FinishedRun]) -> Comparison:
    """Put runs side by side.

    :return: a row a run: ``run``, ``method``, ``space``, ``model``, ``split``, the fields of `_statistics` for the
        metric that comes first (`FinishedRun.headline`), ``tokens``, ``cpu_seconds`` and ``seconds`` (means a seed),
        ``metrics`` with the same fields for every metric, and ``deduplicated`` with them for the test rows that do
        not stand in train, or None where all are unseen.
    :raises RunError: where runs are of different tasks, data, metrics, seeds or training subsets: all that differs.
    """
    if len(runs) < 2:
        raise RunError(f"a comparison needs at least two runs (got {len(runs)})")
    baseline = runs[0]
    faults = [fault for run in runs[1:] for fault in _differences(baseline, run)]
    if faults:
        raise RunError(one_message(faults, "these runs cannot be compared"))
    split = "test" if all(run.split == "test" for run in runs) else "dev"
    rows = tuple(_row(run, baseline, split) for run in runs)
    return Comparison(
        split=split, metric=baseline.headline, rows=rows, remarks=_remarks(runs, split)
    )


def _differences(baseline: FinishedRun, run: FinishedRun) -> list[str]:
    """Why a run cannot be compared with the baseline."""
    first, second = baseline.report, run.report
    audits = first.get("audit", {}), second.get("audit", {})
    pairs = {
        "the task": (first["task"], second["task"]),
        "the metric": (first["metric"], second["metric"]),
        "the seeds": (sorted(baseline.seeds), sorted(run.seeds)),
        "labelled training rows (train_rows)": (baseline.config.train_rows, run.config.train_rows),
        "labelled dev rows (dev_rows)": (baseline.config.dev_rows, run.config.dev_rows),
        "shares of splits drawn anew (split_anew)": (
            baseline.config.split_anew,
            run.config.split_anew,
        ),
        "rows of the splits": (audits[0].get("splits"), audits[1].get("splits")),
        "the texts or labels of dev and test (fingerprint)": (
            audits[0].get("fingerprint"),
            audits[1].get("fingerprint"),
        ),
    }
    return [
        f"{what}: {a} in {baseline.name}, {b} in {run.name}"
        for what, (a, b) in pairs.items()
        if a != b
    ]


def _row(run: FinishedRun, baseline: FinishedRun, split: str) -> dict[str, Any]:
    metric = baseline.headline
    names = sorted(run.report["seeds"][0]["dev"], key=lambda name: name != metric)
    metrics = {name: _statistics(run, baseline, split, name) for name in names}
    unseen = None
    if split == "test" and run.scores("test_deduplicated", metric):
        unseen = _statistics(run, baseline, "test_deduplicated", metric)
    return {
        "run": run.name,
        "method": run.report["method"],
        "space": run.report["space"],
        "model": run.report["model"],
        "split": split,
        "metric": metric,
        **metrics[metric],
        "weights_agreement": run.agreement,
        "tokens": run.cost("tokens"),
        "cpu_seconds": run.cost("cpu_seconds"),
        "seconds": run.cost("seconds"),
        "metrics": metrics,
        "deduplicated": unseen,
    }


def _statistics(run: FinishedRun, baseline: FinishedRun, split: str, metric: str) -> dict[str, Any]:
    """``mean``, sample ``std`` and ``values`` by seed; against the baseline ``delta``, paired ``p_value``, ``interval``
    (95 %, over seeds and test examples, `detectability.chance_of`), ``errors``, the standard errors that it counts, by
    ``seeds`` and by ``texts``, and ``detectable`` (`detectability.detectable`). Those that need two seeds are None for
    one; so are the baseline's own.
    """
    values = run.scores(split, metric)
    seeds = sorted(values)
    scores = [values[seed] for seed in seeds]
    found: dict[str, Any] = {
        **spread(scores),
        "values": {str(seed): values[seed] for seed in seeds},
        "delta": 0.0,
        "p_value": None,
        "interval": None,
        "errors": None,
        "detectable": None,
    }
    if run is baseline:
        return found
    others = baseline.scores(split, metric)
    reference = [others[seed] for seed in seeds]
    test = paired_t_test(reference, scores)
    deltas = [own - other for own, other in zip(scores, reference, strict=True)]
    chance = chance_of(baseline, run, split, metric, deltas)
    return found | {
        "delta": test.mean,
        "p_value": test.p_value,
        "interval": chance.interval(test.mean),
        "errors": {"seeds": math.sqrt(chance.seeds), "texts": math.sqrt(chance.texts)},
        "detectable": detectable(chance),
    }


def agreements(runs: Sequence[FinishedRun]) -> str:
    """How far the seeds of each run agree on the weights, as a sentence; empty where none learned any."""
    known = [
        f"{run.agreement:+.2f} in {run.name}{' (shuffled)' if run.is_control else ''}"
        for run in runs
        if run.agreement is not None
    ]
    if not known:
        return ""
    return f"learned weights agree between seeds with a mean rank correlation of {', '.join(known)}"


def _remarks(runs: Sequence[FinishedRun], split: str) -> tuple[str, ...]:
    baseline = runs[0]
    found = []
    if split == "dev":
        found.append(
            "test has no labels, so scores are those of dev, which also chose the checkpoints"
        )
    for run in runs[1:]:
        least, most = sorted((run.cost("tokens"), baseline.cost("tokens")))
        if most > (1 + COST_GAP) * least:
            ratio = run.cost("tokens") / baseline.cost("tokens") if baseline.cost("tokens") else 0.0
            found.append(
                f"{run.name} read {ratio:.2f} times the tokens of {baseline.name}: "
                "this is no comparison at equal cost"
            )
        if run.report["model"] != baseline.report["model"]:
            found.append(
                f"{run.name} has another encoder ({run.report['model']}) than {baseline.name} "
                f"({baseline.report['model']})"
            )
    if said := agreements(runs):
        found.append(said)
    if len(baseline.seeds) < 3:
        found.append(f"{len(baseline.seeds)} seed(s) can show only very large differences")
    return tuple(found)
