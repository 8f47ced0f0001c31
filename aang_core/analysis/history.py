"""``history.jsonl`` as arrays. In: the lines of a run, one for each step. Out: `History`, and figures computed from it.

Fixed letters: S steps, K objectives. A value that a step did not observe, or that was not finite (null in the file),
is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from aang_core.errors import RunError
from aang_core.files import json_lines
from aang_core.registry.records import STAGES

END_TASK = "end-task"
EARLY, LATE = 0.1, 0.5
"""The first tenth and the last half of the steps: the windows of the paper's Figure 5."""

ENOUGH = 5
"""Steps from which a standard error of alignments is worth judging by."""

POINTS = 60
"""Places on the way at which bands of alignments are computed."""

Series = NDArray[np.float64]


@attrs.frozen(eq=False, kw_only=True)
class History:
    """One seed's steps.

    :param steps: [S] numbers from 1.
    :param ids: the K auxiliary objectives that ever took part, sorted.
    :param losses, weights, alignments, norms: [S, K].
    :param end_task: ``losses``, ``alignments``, ``norms`` and ``weights`` (λ_e) of the end-task, [S] each.
    :param tokens: [S]; :param lr: [S].
    """

    steps: Series
    ids: tuple[str, ...]
    losses: Series
    weights: Series
    alignments: Series
    norms: Series
    end_task: Mapping[str, Series]
    tokens: Series
    lr: Series

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def relative_weights(self) -> Series:
        """[S, K] each weight times the number of objectives of its step: 1 is an equal share."""
        taking_part = np.isfinite(self.weights).sum(axis=1, keepdims=True)
        relative: Series = self.weights * taking_part
        return relative

    def stage_shares(self, stage: str) -> tuple[tuple[str, ...], Series]:
        """The primitives of a stage, and [S, primitives] the mean relative weight of their objectives, as shares.

        Objectives begin with an equal share. One that is not sampled for a while keeps its last weight.
        """
        place = STAGES.index(stage)
        of = [id_.split("/")[place] for id_ in self.ids]
        names = tuple(sorted(set(of)))
        relative = held(smoothed(self.relative_weights), 1.0)
        means = np.stack(
            [mean_of(relative[:, [o == name for o in of]], axis=1) for name in names], axis=1
        )
        return names, means / np.nansum(means, axis=1, keepdims=True)


@attrs.frozen(kw_only=True)
class Estimate:
    """A mean over steps.

    :param error: standard error; NaN for fewer than two values. Neighbouring steps share a dev gradient and drift
        together, so the number of values is cut by (1 − r)/(1 + r), r their lag-1 correlation where it is positive.
    :param count: steps that observed the objective.
    """

    id: str
    mean: float
    error: float
    count: int

    @property
    def harmful(self) -> bool:
        """Negative transfer: the mean alignment lies more than two standard errors below 0."""
        return self.count >= ENOUGH and self.mean < -2 * self.error

    @property
    def helpful(self) -> bool:
        """It lies more than two standard errors above 0."""
        return self.count >= ENOUGH and self.mean > 2 * self.error


def read_history(path: Path) -> History:
    """A seed's history.

    :raises RunError: where the file is missing, or a line is damaged (it is named).
    """
    records = json_lines(path)
    try:
        return history_of(records)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as cause:
        raise RunError(f"{path} is damaged: a line has no {cause}") from cause


def history_of(records: Sequence[Mapping[str, Any]]) -> History:
    """The steps of a seed, from the fields of `step.StepRecord`.

    :raises ValueError: where an id is none.
    """
    ids = tuple(
        sorted({name for r in records for name in (*r["weights"], *r["losses"])} - {END_TASK})
    )
    if strangers := [id_ for id_ in ids if id_.count("/") != len(STAGES) - 1]:
        raise ValueError(f"id of {len(STAGES)} stages, but {strangers[0][:80]!r}")

    def table(name: str) -> Series:
        rows = [[_number(r[name].get(id_)) for id_ in ids] for r in records]
        return np.asarray(rows, dtype=np.float64).reshape(len(records), len(ids))

    def column(value: Callable[[Mapping[str, Any]], Any]) -> Series:
        return np.asarray([_number(value(r)) for r in records], dtype=np.float64)

    names = ("losses", "alignments", "norms")
    end_task = {n: column(lambda r, n=n: r[n].get(END_TASK)) for n in names}  # type: ignore[misc]
    return History(
        steps=column(lambda r: r["step"]),
        ids=ids,
        **{name: table(name) for name in ("losses", "weights", "alignments", "norms")},
        end_task={**end_task, "weights": column(lambda r: r["end_task_weight"])},
        tokens=column(lambda r: r.get("tokens", 0)),
        lr=column(lambda r: r.get("lr", 0.0)),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def smoothed(values: Series, window: int = 0) -> Series:
    """Centred running means over the steps that were observed; NaN where none in the window was.

    :param values: [S] or [S, K].
    :param window: steps; 0 for a twentieth of them, at least 5.
    """
    half = (window or max(5, len(values) // 20)) // 2
    seen = np.isfinite(values)
    zero = np.zeros_like(values[:1], dtype=np.float64)
    sums = np.concatenate([zero, np.where(seen, values, 0.0).cumsum(axis=0)])
    counts = np.concatenate([zero, seen.astype(np.float64).cumsum(axis=0)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    total, number = sums[high] - sums[low], counts[high] - counts[low]
    means: Series = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    return means


def held(values: Series, first: float) -> Series:
    """[S, K] with each NaN replaced by the value above it, and by `first` where there is none."""
    rows = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(np.isfinite(values), rows, -1), axis=0)
    kept = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    filled: Series = np.where(last >= 0, kept, first)
    return filled


def mean_of(values: Series, axis: int = 0) -> Series:
    """The mean of what is not NaN along an axis; NaN where everything is."""
    seen = np.isfinite(values)
    total, number = np.where(seen, values, 0.0).sum(axis=axis), seen.sum(axis=axis)
    means: Series = np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)
    return means


def alignment_estimates(history: History) -> list[Estimate]:
    """Mean alignment of every objective that was observed, the end-task first, then from the highest."""
    found = [
        _estimate(id_, column)
        for id_, column in zip(history.ids, history.alignments.T, strict=True)
    ]
    found = sorted((e for e in found if e.count), key=lambda e: (-e.mean, e.id))
    first = _estimate(END_TASK, history.end_task["alignments"])
    return [first, *found] if first.count else found


def _estimate(id_: str, column: Series) -> Estimate:
    values = column[np.isfinite(column)]
    count = len(values)
    if count < 2:
        return Estimate(
            id=id_, mean=float(values[0]) if count else math.nan, error=math.nan, count=count
        )
    centred = values - values.mean()
    variance = float((centred**2).sum())
    lag = float((centred[1:] * centred[:-1]).sum()) / variance if variance > 0 else 0.0
    effective = max(2.0, count * (1 - max(lag, 0.0)) / (1 + max(lag, 0.0)))
    error = math.sqrt(variance / (count - 1) / effective)
    return Estimate(id=id_, mean=float(values.mean()), error=error, count=count)


@attrs.frozen(eq=False, kw_only=True)
class Bands:
    """Estimates of alignments as they stood on the way.

    :param steps: [P] at most `POINTS` of them.
    :param mean, error: [P, K] over the steps until then, as in `Estimate`; NaN where fewer than `ENOUGH` were observed.
    """

    steps: NDArray[np.int64]
    ids: tuple[str, ...]
    mean: Series
    error: Series

    @property
    def certain(self) -> NDArray[np.bool_]:
        """[P, K] whether the band of two standard errors leaves zero."""
        with np.errstate(invalid="ignore"):
            found: NDArray[np.bool_] = np.abs(self.mean) > 2 * self.error
        return found


def alignment_bands(histories: Sequence[History]) -> Bands:
    """The estimates of every auxiliary objective over the first steps of all seeds, for growing numbers of them."""
    ids = tuple(sorted({id_ for history in histories for id_ in history.ids}))
    longest = max(len(history) for history in histories)
    steps = np.unique(np.linspace(min(ENOUGH, longest), longest, POINTS).astype(np.int64))
    mean = np.full((len(steps), len(ids)), np.nan)
    error = mean.copy()
    for k, id_ in enumerate(ids):
        columns = [h.alignments[:, h.ids.index(id_)] for h in histories if id_ in h.ids]
        for place, step in enumerate(steps):
            found = _estimate(id_, np.concatenate([column[:step] for column in columns]))
            if found.count >= ENOUGH:
                mean[place, k], error[place, k] = found.mean, found.error
    return Bands(steps=steps, ids=ids, mean=mean, error=error)


def early_and_late(history: History) -> list[tuple[str, float, float]]:
    """(id, early, late) mean relative weights in the first tenth and the last half, sorted from the heaviest late one.

    An objective that a window never held has NaN there and stands last.
    """
    relative, count = history.relative_weights, len(history)
    early = mean_of(relative[: max(1, math.ceil(EARLY * count))])
    late = mean_of(relative[min(count - 1, math.floor((1 - LATE) * count)) :])
    rows = zip(history.ids, early.tolist(), late.tolist(), strict=True)
    return sorted(rows, key=lambda row: (math.isnan(row[2]), -row[2], row[0]))


def widened(values: Series, own: Sequence[str], names: Sequence[str]) -> Series:
    """[S, own] as [S, names]: each column under its name, NaN under the others."""
    wide = np.full((len(values), len(names)), np.nan)
    wide[:, [names.index(name) for name in own]] = values
    return wide


def pooled(histories: Sequence[History]) -> History:
    """All steps of all seeds as one history, seed after seed: for means over everything that was observed."""
    ids = tuple(sorted({id_ for history in histories for id_ in history.ids}))

    def table(name: str) -> Series:
        return np.concatenate([widened(getattr(h, name), h.ids, ids) for h in histories])

    def column(name: str) -> Series:
        return np.concatenate([getattr(history, name) for history in histories])

    return History(
        ids=ids,
        **{name: table(name) for name in ("losses", "weights", "alignments", "norms")},
        **{name: column(name) for name in ("steps", "tokens", "lr")},
        end_task={
            name: np.concatenate([history.end_task[name] for history in histories])
            for name in histories[0].end_task
        },
    )
