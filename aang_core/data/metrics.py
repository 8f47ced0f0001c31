"""Scores of predictions: `score` for every kind of task, and `confusion_of` for the confusion matrix.

Fixed letters: R examples, T positions of an example, C classes. The numbers are fractions (0 to 1)
and correlations (−1 to 1), never percentages. scikit-learn and scipy compute them. This module decides which
ones, over which classes, and what a degenerate case gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aang_core.errors import TaskError

METRICS: Mapping[str, tuple[str, ...]] = {
    "class": ("accuracy", "f1"),
    "regression": ("pearson", "spearman"),
    "multilabel": ("accuracy", "f1"),
    "token": ("accuracy", "f1"),
}
"""By kind of task: the metrics by which dev can choose, the usual one first. `score` gives all of them."""

IGNORED = -100
"""The label (or tag) of a position that counts nowhere: special ones, and word pieces after the first.

It stands here, and `rows` takes it from here, because scoring finished runs needs no torch.
"""


def score(kind: str, predictions: Any, labels: Any, classes: int = 0) -> dict[str, float]:
    """All metrics that a task of this kind has.

    :param kind: ``class``: `predictions` are logits [R, C] or classes [R], `labels` [R];
        ``regression``: numbers, [R] or [R, 1], and [R];
        ``multilabel``: logits [R, C] (positive means yes), `labels` [R, C] of 0 and 1;
        ``token``: logits [..., C] or classes [...], `labels` [...] with `IGNORED` where none counts.
        Ragged token predictions are handed over flat.
    :param classes: C. Macro-F1 is over all classes of the task, also those that neither the labels nor
        the predictions hold, so that numbers from different splits and seeds can be compared. With 0 it is read
        off the logits, or else off the largest class that occurs.
    :return: ``class`` and ``token``: accuracy, f1 (macro); ``multilabel``: accuracy (all C right), f1
        (macro); ``regression``: pearson, spearman, mse.
    :raises TaskError: for an unknown kind, no examples, or shapes that do not fit.

    A class without any label and prediction scores F1 = 0. Correlations with a constant are undefined; they score
    0, since such predictions rank nothing.
    """
    scorers = {"class": _classes, "token": _tokens, "multilabel": _multilabel}
    predicted, expected = np.asarray(predictions), np.asarray(labels)
    _check(predicted, expected)
    if kind == "regression":
        return _regression(predicted, expected)
    if kind not in scorers:
        known = ", ".join(sorted([*scorers, "regression"]))
        raise TaskError(f"no metric for tasks of kind {kind!r}; the kinds are {known}")
    return scorers[kind](predicted, expected, classes)


def standard_error(kind: str, rows: int) -> float:
    """The largest standard error of a score on R examples, as a fraction (of 1) or a correlation.

    √(0.25 / R) for a share of right answers, that of one half; 1 / √(R − 1) for a correlation, that of none.
    """
    if kind == "regression":
        return 1 / math.sqrt(max(1, rows - 1))
    return math.sqrt(0.25 / max(1, rows))


def confusion_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> NDArray[np.int64]:
    """[C, C] counts of rows of ``predictions.jsonl``: true labels down, predicted ones across, both as in `names`."""
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for row in rows:
        counts[place[row["gold"]], place[row["label"]]] += 1
    return counts


def _check(predicted: NDArray[Any], expected: NDArray[Any]) -> None:
    if not len(expected):
        raise TaskError("there is nothing to score: the split has no labelled example")
    if len(predicted) != len(expected):
        raise TaskError(
            f"{len(predicted)} predictions cannot be scored against {len(expected)} labels"
        )


def _argmax(predicted: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any]:
    """Classes, whether given as such or as logits with one more axis than the labels."""
    if predicted.ndim == expected.ndim + 1:
        return np.asarray(predicted.argmax(-1))
    _same_shape(predicted, expected)
    return predicted


def _same_shape(predicted: NDArray[Any], expected: NDArray[Any]) -> None:
    if predicted.shape != expected.shape:
        raise TaskError(f"predictions {predicted.shape} do not fit labels {expected.shape}")


def _classes(predicted: NDArray[Any], expected: NDArray[Any], classes: int) -> dict[str, float]:
    chosen = _argmax(predicted, expected)
    if predicted.ndim > expected.ndim:
        classes = classes or predicted.shape[-1]
    universe = np.arange(classes or int(max(chosen.max(), expected.max())) + 1)
    said, true = chosen.reshape(-1, 1) == universe, expected.reshape(-1, 1) == universe
    return {"accuracy": float(np.mean(chosen == expected)), "f1": _macro_f1(said, true)}


def _macro_f1(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """The mean over columns (classes) of 2 · both / (said + true); 0 for a class that is neither said nor true."""
    both, either = 2 * (said & true).sum(0), said.sum(0) + true.sum(0)
    return float(np.mean(both / np.maximum(either, 1)))


def _tokens(predicted: NDArray[Any], expected: NDArray[Any], classes: int) -> dict[str, float]:
    counted = expected != IGNORED
    if not counted.any():
        raise TaskError("there is nothing to score: no position has a label")
    if predicted.ndim > expected.ndim:
        classes = classes or predicted.shape[-1]
    return _classes(_argmax(predicted, expected)[counted], expected[counted], classes)


def _multilabel(predicted: NDArray[Any], expected: NDArray[Any], _: int) -> dict[str, float]:
    _same_shape(predicted, expected)
    chosen, true = predicted > 0, expected > 0
    return {"accuracy": float(np.mean((chosen == true).all(1))), "f1": _macro_f1(chosen, true)}


def _regression(predicted: NDArray[Any], expected: NDArray[Any]) -> dict[str, float]:
    from scipy.stats import pearsonr, rankdata

    numbers = predicted.reshape(len(predicted), -1).astype(np.float64)
    if numbers.shape[1] != 1 or expected.ndim != 1:
        raise TaskError(f"predictions {predicted.shape} do not fit labels {expected.shape}")
    x, y = numbers[:, 0], expected.astype(np.float64)
    constant = bool(np.ptp(x) == 0 or np.ptp(y) == 0)
    return {
        "pearson": 0.0 if constant else float(pearsonr(x, y).statistic),
        "spearman": 0.0 if constant else float(pearsonr(rankdata(x), rankdata(y)).statistic),
        "mse": float(np.mean((x - y) ** 2)),
    }
