"""How small a difference between two runs this many seeds, and this many test examples, could have shown.

Seeds and examples are two sources of chance: the variation from seed to seed is over the *same* examples, so it says
nothing about which ones the test split happens to hold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aang_core.analysis.statistics import macro_f1_standard_error, smallest_detectable_difference
from aang_core.data.metrics import confusion_of
from aang_core.rundir.finished import FinishedRun

_BOTH_QUANTILES = 1.959964 + 0.841621  # of the normal: 5 % two-sided, and power 80 %


def detectable(
    baseline: FinishedRun, run: FinishedRun, split: str, metric: str, std: float
) -> dict[str, float | None]:
    """The true difference that a study like this finds with power 80 % at the 5 % level.

    :param std: of the paired differences over seeds.
    :return: ``seeds``: by chance over seeds alone; ``texts``: by chance over test examples alone (accuracy: paired,
        from the predictions of both; macro-F1: the delta method, unpaired, so too large rather than too small);
        ``both``: the root of the sum of their squares. None where it cannot be known: fewer than two seeds, other
        metrics, dev, or differences that do not vary at all, which would claim that nothing is too small to be seen.
    """
    seeds = None
    if len(run.seeds) > 1 and std > 1e-12:
        seeds = smallest_detectable_difference(std, len(run.seeds))
    texts = _over_texts(baseline, run, metric) if split == "test" else None
    both = None if seeds is None or texts is None else math.hypot(seeds, texts)
    return {"seeds": seeds, "texts": texts, "both": both}


def _over_texts(baseline: FinishedRun, run: FinishedRun, metric: str) -> float | None:
    first, second = _judged(baseline), _judged(run)
    if not first or not second or metric not in ("accuracy", "f1"):
        return None
    if metric == "accuracy":
        gain = np.mean([right for _, right in second], axis=0)
        gain = gain - np.mean([right for _, right in first], axis=0)
        error = float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
        return _BOTH_QUANTILES * error if 0 < error < math.inf else None
    # The examples are the same for all seeds, so over seeds the error is a mean, and no smaller.
    errors = [
        float(np.mean([macro_f1_standard_error(confusion) for confusion, _ in answers]))
        for answers in (first, second)
    ]
    return _BOTH_QUANTILES * math.hypot(*errors)


def _judged(run: FinishedRun) -> list[tuple[Any, Any]]:
    """For each seed the [C, C] confusion and [R] whether each test row was right; empty for other kinds of tasks."""
    found = []
    for seed in run.seeds:
        rows = run.predictions(seed)
        if not rows or any("gold" not in row or "label" not in row for row in rows):
            return []
        names = sorted({row["gold"] for row in rows} | set(rows[0]["probabilities"]))
        confusion = confusion_of(rows, names)
        found.append((confusion, np.asarray([row["gold"] == row["label"] for row in rows], float)))
    return found
