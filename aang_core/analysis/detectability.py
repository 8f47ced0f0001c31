"""The smallest difference between two runs that this many seeds and test examples could have shown.

Seeds and examples are two sources of chance. All seeds are judged on the *same* examples, so the variation between
seeds says nothing about the choice of examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aang_core.analysis.examples import Example, Row, examples_of
from aang_core.analysis.statistics import (
    detectable_at,
    joined_chance,
    macro_f1_standard_error,
    smallest_detectable_difference,
)
from aang_core.data.metrics import confusion_of
from aang_core.errors import RunError
from aang_core.rundir.finished import FinishedRun


def detectable(
    baseline: FinishedRun, run: FinishedRun, split: str, metric: str, std: float
) -> dict[str, float | None]:
    """The true difference that a study like this finds with power 80 % at the 5 % level.

    :param std: of the paired differences over seeds.
    :return: ``seeds``: by chance over seeds alone; ``texts``: by chance over test examples alone (accuracy: paired,
        from the predictions of both; macro-F1: the delta method, unpaired, so too large rather than too small);
        ``both``: by the sum of the two variances, with the degrees of freedom of Welch and Satterthwaite
        (`statistics.joined_chance`), so that two seeds that hardly differ do not make it as large as ``seeds``; with
        ``split_anew`` it counts part of the examples' chance twice: too large as well. None where it cannot be known:
        fewer than two seeds, other metrics, dev, or differences that do not vary at all, which would claim that
        nothing is too small to be seen.
    """
    count, seeds, both = len(run.seeds), None, None
    if count > 1 and std > 1e-12:
        seeds = smallest_detectable_difference(std, count)
    error = _error_over_texts(baseline, run, metric) if split == "test" else None
    if seeds is not None and error is not None:
        variance, freedom = joined_chance((std**2 / count, count - 1), (error**2, math.inf))
        both = detectable_at(math.sqrt(variance), freedom)
    texts = None if error is None else detectable_at(error, math.inf)
    return {"seeds": seeds, "texts": texts, "both": both}


def _error_over_texts(baseline: FinishedRun, run: FinishedRun, metric: str) -> float | None:
    """The standard error of the gain by chance over the test examples.

    :raises RunError: where the runs judge different examples in the same seed.
    """
    first, second = _predictions(baseline), _predictions(run)
    if not first or not second or metric not in ("accuracy", "f1"):
        return None
    if metric == "accuracy":
        try:
            error = _error_of_gain(first, second)
        except KeyError as cause:
            raise RunError(
                f"{baseline.path} and {run.path} judge different test examples in the same seed ({cause}), so their "
                "accuracies cannot be compared; expected runs on the same data"
            ) from cause
        return error if 0 < error < math.inf else None
    # Where all seeds judge the same examples, the error over seeds is their mean, and no smaller.
    errors = [
        float(np.mean([macro_f1_standard_error(_confusion(rows).tolist()) for rows in seeds]))
        for seeds in (first, second)
    ]
    return math.hypot(*errors)


def _error_of_gain(first: Sequence[Sequence[Row]], second: Sequence[Sequence[Row]]) -> float:
    """The standard error of the mean gain in accuracy, by chance over the E test examples.

    An example's gains in several seeds are one draw, whether all seeds judge the same examples or each its own
    (``split_anew``): with d_e the sum of its gains and n_e their number, ``g = Σ d_e / Σ n_e`` has the error
    ``√(E/(E−1) Σ (d_e − n_e g)²) / Σ n_e``, which is ``s/√E`` where every n_e is S.

    :param first, second: of each of the S seeds, in the same order.
    :raises KeyError: where the two judge different examples in the same seed: one of them.
    """
    gains: dict[Example, list[float]] = {}
    for before, after in zip(map(examples_of, first), map(examples_of, second), strict=True):
        if strangers := before.keys() ^ after.keys():
            raise KeyError(min(strangers)[0])
        for example, row in after.items():
            gains.setdefault(example, []).append(_right(row) - _right(before[example]))
    sums, counts = (np.asarray([f(g) for g in gains.values()], float) for f in (sum, len))
    if len(sums) < 2:
        return math.inf
    off = sums - counts * sums.sum() / counts.sum()
    return math.sqrt(len(sums) / (len(sums) - 1) * float((off**2).sum())) / float(counts.sum())


def _right(row: Row) -> float:
    return float(row["gold"] == row["label"])


def _confusion(rows: Sequence[Row]) -> NDArray[np.int64]:
    names = sorted({row["gold"] for row in rows} | set(rows[0]["probabilities"]))
    return confusion_of(rows, names)


def _predictions(run: FinishedRun) -> Sequence[Sequence[Row]]:
    """Each seed's predictions, in the order of the seeds; empty for other kinds of tasks."""
    found = [run.predictions(seed) for seed in sorted(run.seeds)]
    if not all(rows and all("gold" in r and "label" in r for r in rows) for rows in found):
        return []
    return found
