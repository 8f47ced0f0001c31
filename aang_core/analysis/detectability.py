"""How sure a difference between two runs is, and the smallest that this many seeds and test examples could have shown.

Seeds and examples are two sources of chance. All seeds are judged on the *same* examples, so the variation between
seeds says nothing about the choice of examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from aang_core.analysis.examples import Example, Row, examples_of
from aang_core.analysis.statistics import Chance, macro_f1_slopes
from aang_core.errors import RunError
from aang_core.rundir.finished import FinishedRun, predictions_in

POINTS = ("accuracy", "f1")
"""Metrics whose differences people name in points, hundredths of the whole; the chance of test examples is known."""


def chance_of(
    baseline: FinishedRun, run: FinishedRun, split: str, metric: str, deltas: Sequence[float]
) -> Chance:
    """What moves the mean difference of two runs of the same seeds.

    With ``split_anew`` each seed has test examples of its own, and the variation over several seeds holds theirs.

    :param deltas: of the seeds, in their order.
    :raises RunError: where the runs judge different examples in the same seed.
    """
    anew = bool(run.config.split_anew) and len(deltas) > 1
    if split != "test" or metric not in POINTS or anew:
        return Chance.of(deltas)
    first, second = (
        [_answers_of(each, seed) for seed in sorted(run.seeds)] for each in (baseline, run)
    )
    known_first = [answers for answers in first if answers is not None]
    known_second = [answers for answers in second if answers is not None]
    if not len(known_first) == len(known_second) == len(deltas):
        return Chance.of(deltas)
    try:
        error = error_of_gain(known_first, known_second, metric)
    except KeyError as cause:
        raise RunError(
            f"{baseline.path} and {run.path} judge different test examples in the same seed ({cause}), so their "
            "scores cannot be compared; expected runs on the same data"
        ) from cause
    return Chance.of(deltas, texts=error**2)


def detectable(chance: Chance) -> dict[str, float | None]:
    """The true difference that a study like this finds with power 80 % at the 5 % level.

    :return: ``seeds``: by chance over seeds alone; ``texts``: by chance over test examples alone (accuracy and
        macro-F1, paired); ``both``: by the two together, as the interval counts them (`statistics.Chance`). None where
        it cannot be known: fewer than two seeds, other metrics, dev, or differences that do not vary at all, which
        would claim that nothing is too small to be seen.
    """
    seeds, texts = attrs.evolve(chance, texts=0.0), attrs.evolve(chance, seeds=0.0)
    both = chance.detectable() if seeds.error and texts.error else None
    return {"seeds": seeds.detectable(), "texts": texts.detectable(), "both": both}


def could_show(found: Mapping[str, float | None] | None) -> float | None:
    """Of what `detectable` says, the one number for people; by one source of chance where the other is not known."""
    known = (found[name] for name in ("both", "seeds", "texts")) if found else ()
    return next((value for value in known if value is not None), None)


@attrs.frozen(eq=False)
class Answers:
    """What one seed answered.

    :param examples: the R test examples. :param cells: [R, 2] true and answered class of each, by number.
    :param classes: C.
    """

    examples: tuple[Example, ...]
    cells: NDArray[np.int64]
    classes: int

    def contributions(self, metric: str) -> NDArray[np.float64]:
        """[R] what each example adds to R times the score, to first order (macro-F1: the delta method)."""
        gold, label = self.cells.T
        if metric == "accuracy":
            return np.asarray(gold == label, dtype=np.float64)
        counts = np.zeros((self.classes, self.classes))
        np.add.at(counts, (gold, label), 1.0)
        return np.asarray(macro_f1_slopes(counts / len(gold))[gold, label])


def _answers_of(run: FinishedRun, seed: int) -> Answers | None:
    """None for other kinds of tasks than one class a row."""
    path = run.folder_of(seed) / "predictions.jsonl"
    if not path.is_file():
        return None
    found = path.stat()
    return _read_answers(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _read_answers(path: Path, _modified: int, _size: int) -> Answers | None:
    """Kept, since a baseline is compared with many runs, under each metric; a file of another time or size is
    read again.
    """
    return answers_in(predictions_in(path))


def answers_in(rows: Sequence[Row]) -> Answers | None:
    """Of the lines of one ``predictions.jsonl``; None where they are no classes with true ones beside them."""
    if not rows or not all(isinstance(row.get("gold"), str) and "label" in row for row in rows):
        return None
    names = {name for row in rows for name in (row["gold"], row["label"])}
    place = {
        name: i for i, name in enumerate(sorted(names | set(rows[0].get("probabilities", ()))))
    }
    judged = examples_of(rows)
    cells = [(place[row["gold"]], place[row["label"]]) for row in judged.values()]
    return Answers(tuple(judged), np.asarray(cells), len(place))


def error_of_gain(first: Sequence[Answers], second: Sequence[Answers], metric: str) -> float:
    """The standard error of the mean gain by chance over the E test examples; 0 where all answers score alike.

    An example's gains in several seeds are one draw, whether all seeds judge the same examples or each its own
    (``split_anew``): with d_e the sum of what it adds (`Answers.contributions`) and n_e how many seeds judge it,
    ``g = Σ d_e / Σ n_e`` has the error ``√(E/(E−1) Σ (d_e − n_e g)²) / Σ n_e``, which is ``s/√E`` where every n_e is S.

    :param first, second: of each of the S seeds, in the same order.
    :raises KeyError: where the two judge different examples in the same seed: one of them.
    """
    sums: dict[Example, float] = {}
    counts: dict[Example, int] = {}
    for before, after in zip(first, second, strict=True):
        was = dict(zip(before.examples, before.contributions(metric), strict=True))
        if strangers := was.keys() ^ set(after.examples):
            raise KeyError(min(strangers)[0])
        for example, adds in zip(after.examples, after.contributions(metric), strict=True):
            sums[example] = sums.get(example, 0.0) + adds - was[example]
            counts[example] = counts.get(example, 0) + 1
    d, n = (np.asarray(list(each.values()), dtype=np.float64) for each in (sums, counts))
    if len(d) < 2:
        return 0.0
    off = d - n * d.sum() / n.sum()
    return math.sqrt(len(d) / (len(d) - 1) * float((off**2).sum())) / float(n.sum())
