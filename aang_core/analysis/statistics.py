"""How sure a comparison is: paired tests over seeds, intervals, and the smallest difference that a study could show.

All functions take plain sequences of scores and are pure; randomness comes from a generator that is passed in.
Fixed letters: S seeds, T tasks, B draws, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import attrs
import numpy as np
from numpy.typing import NDArray

from aang_core.errors import RunError


@attrs.frozen
class PairedTest:
    """A paired t-test of S differences.

    :param mean: of the differences, second minus first.
    :param std: their sample standard deviation.
    :param t: Student's t with S − 1 degrees of freedom; None where it is undefined.
    :param p_value: two-sided; None with it.
    """

    mean: float
    std: float
    t: float | None
    p_value: float | None


def _differences(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise RunError(
            f"a paired comparison needs the same seeds on both sides, at least one; found {a.size} and {b.size} "
            "scores. Run the missing seeds"
        )
    return b - a


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Whether `second` differs from `first`, seed by seed (paper, §6).

    With one seed, or differences that do not vary at all, the test is undefined: `t` and `p_value` are None, since
    infinite certainty out of two equal differences would be a false report.

    :raises RunError: where the two have different numbers of seeds, or none.
    """
    from scipy.stats import ttest_1samp

    delta = _differences(first, second)
    spread = float(delta.std(ddof=1)) if len(delta) > 1 else 0.0
    mean = float(delta.mean())
    # Differences that are equal on paper come out of subtraction unequal by a rounding error.
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return PairedTest(mean, spread, None, None)
    result = ttest_1samp(delta, 0.0)
    return PairedTest(mean, spread, float(result.statistic), float(result.pvalue))


@cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[1000] nodes and [1000] weights on [−1, 1]; kept, since making them takes most of a second."""
    return np.polynomial.legendre.leggauss(1000)


@attrs.frozen(kw_only=True)
class Chance:
    """What moves a mean difference: the seeds, whose variance is estimated, and the test texts, whose variance counts
    as known.

    :param seeds: variance of the mean by chance over seeds; 0 where it is unknown.
    :param freedom: degrees of freedom of `seeds`.
    :param texts: variance of the mean by chance over test texts; 0 where it is unknown.

    Cochran's approximation (Cochran and Cox, Experimental Designs, 1957): the critical value is the mean of Student's t
    with `freedom` and the normal's, weighted by the two variances. Its test rejects 2 to 6 % of true
    hypotheses at the 5 % level, whatever the weights; Welch and Satterthwaite's rejects up to 13 % with two seeds,
    because a variance that came out small by chance also claims more degrees of freedom.
    """

    seeds: float = 0.0
    freedom: float = math.inf
    texts: float = 0.0

    @classmethod
    def of(cls, differences: Sequence[float], texts: float = 0.0) -> Chance:
        """Of the mean of S paired differences.

        :param texts: variance of that mean by chance over test texts.
        """
        count = len(differences)
        spread = float(np.std(differences, ddof=1)) if count > 1 else 0.0
        # Differences that are equal on paper come out of subtraction unequal by a rounding error.
        known = spread > 1e-12
        return cls(
            seeds=spread**2 / count if known else 0.0,
            freedom=count - 1 if known else math.inf,
            texts=texts,
        )

    @classmethod
    def mean_of(cls, tasks: Sequence[Chance]) -> Chance:
        """Of the mean over tasks, each with seeds and texts of its own.

        The variances add up; the seeds' degrees of freedom are Welch's and Satterthwaite's, ``V² / Σ v_t² / ν_t``.
        """
        scale = len(tasks) ** 2
        seeds = sum(task.seeds for task in tasks) / scale
        spread = sum((task.seeds / scale) ** 2 / task.freedom for task in tasks)
        freedom = seeds**2 / spread if spread else math.inf
        return cls(seeds=seeds, freedom=freedom, texts=sum(task.texts for task in tasks) / scale)

    @property
    def error(self) -> float:
        """The standard error of the mean difference."""
        return math.sqrt(self.seeds + self.texts)

    def _half_widths(self, ratios: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
        """Of the interval where the seeds' variance is estimated at `ratios` times `seeds`; same shape."""
        from scipy.stats import norm, t

        seeds = ratios * self.seeds
        known = float(norm.ppf(1.0 - alpha / 2.0))
        own = known if math.isinf(self.freedom) else float(t.ppf(1.0 - alpha / 2.0, self.freedom))
        found: NDArray[np.float64] = (own * seeds + known * self.texts) / np.sqrt(
            seeds + self.texts
        )
        return found

    def interval(self, mean: float, level: float = 0.95) -> list[float] | None:
        """Around `mean`; None where nothing varies, since infinite certainty would be a false report."""
        if not self.error:
            return None
        half = float(self._half_widths(np.ones(1), 1.0 - level)[0])
        return [mean - half, mean + half]

    def power(self, effect: float, alpha: float = 0.05) -> float:
        """The chance that the interval leaves out zero where the true difference is `effect`; `error` is not 0."""
        from scipy.stats import chi2, norm

        # Given the ratio of estimated to true variance the test is one of a normal variable, so average over the
        # quantiles of that ratio, by Gauss-Legendre. (scipy's noncentral t gives NaN for some shifts and many seeds.)
        nodes, parts = _quadrature()
        ratios = np.ones_like(nodes)
        if not math.isinf(self.freedom):
            ratios = chi2.ppf((nodes + 1.0) / 2.0, self.freedom) / self.freedom
        half = self._half_widths(ratios, alpha)
        found = norm.cdf((effect - half) / self.error) + norm.cdf((-effect - half) / self.error)
        return float(parts @ found / 2.0)

    def detectable(self, alpha: float = 0.05, wanted: float = 0.8) -> float | None:
        """The true difference whose interval leaves out zero with probability `wanted`; None where nothing varies.

        It exceeds half the width of the interval, which a difference of that size would leave half the time only.
        """
        from scipy.optimize import brentq

        if not self.error:
            return None
        # In units of the error, so that the search has one scale. One degree of freedom needs the widest bracket: its
        # critical value at alpha = 5 % is 12.7.
        upper = 1.0
        while self.power(upper * self.error, alpha) < wanted:
            upper *= 2.0

        def lacking(effect: float) -> float:
            return self.power(effect * self.error, alpha) - wanted

        return self.error * float(brentq(lacking, 0.0, upper, xtol=1e-12))


def smallest_detectable_difference(
    std: float, seeds: int, alpha: float = 0.05, wanted: float = 0.8
) -> float:
    """The true mean difference that a paired t-test over `seeds` seeds would find with power `wanted`.

    Proportional to `std`, the standard deviation of the paired differences; 0 where they do not vary.

    :raises RunError: for fewer than two seeds, which no test can compare, or a negative `std`.
    """
    if seeds < 2 or std < 0:
        raise RunError(
            "a detectable difference needs at least two seeds and a standard deviation >= 0; "
            f"found {seeds} and {std}"
        )
    return Chance(seeds=std**2 / seeds, freedom=seeds - 1).detectable(alpha, wanted) or 0.0


def resampled_means(
    tasks: Sequence[Sequence[float]],
    generator: np.random.Generator,
    *,
    other_tasks: bool,
    draws: int = 10_000,
) -> NDArray[np.float64]:
    """[B] bootstrap draws of the mean over T tasks of the mean difference over each task's seeds.

    With `other_tasks` tasks are drawn with replacement, then the seeds of each drawn task (the hierarchical bootstrap;
    Davison and Hinkley, Bootstrap Methods, 1997, §3.8): what other tasks like these would show. Else every task stays
    and its seeds are drawn alone (stratified; Agarwal et al., 2021): what other seeds would show on these very tasks.

    Resampling S numbers gives a mean whose variance is too small by (S − 1)/S; the deviations of a task's resampled
    mean are made larger by the root of S/(S − 1) (Hesterberg, 2015). Tasks are not corrected.

    :param tasks: the S_t differences of each task, at least one.
    :param draws: B.
    """
    count, most = len(tasks), max(map(len, tasks))
    sizes = np.asarray([len(task) for task in tasks])
    padded = np.stack([np.pad(np.asarray(task, float), (0, most - len(task))) for task in tasks])
    picked = np.tile(np.arange(count), (draws, 1))  # [B, T]
    if other_tasks:
        picked = generator.integers(0, count, size=(draws, count))
    size = sizes[picked]
    places = (generator.random((draws, count, most)) * size[..., None]).astype(np.int64)
    seeds = np.where(np.arange(most) < size[..., None], padded[picked[..., None], places], 0.0)
    own = (padded.sum(1) / sizes)[picked]
    wider = np.sqrt(size / np.maximum(size - 1, 1))
    found: NDArray[np.float64] = (own + wider * (seeds.sum(2) / size - own)).mean(1)
    return found


EXACT = 20
"""Up to so many differences that are not 0 a sign-flip test looks at all of their signs."""


def sign_flip_test(
    tasks: Sequence[Sequence[float]], generator: np.random.Generator, draws: int = 100_000
) -> float | None:
    """Two-sided p of the mean over tasks of the mean difference over seeds, if each difference might as well have had
    the other sign: that the two methods are equal on every one of these tasks. It says nothing of other tasks.

    Exact up to `EXACT` differences that are not 0. Beyond, the share of random signs with a mean as large, each count
    one more than found, so that p is never 0 (Phipson and Smyth, 2010).

    :param tasks: the S_t differences of each task.
    :return: None where no difference is other than 0.
    """
    parts = [float(d) / len(task) for task in tasks for d in task if d]
    if not parts:
        return None
    least = abs(sum(parts)) * (1 - 1e-9)  # equal on paper is equal
    if len(parts) <= EXACT:
        sums = np.zeros(1)
        for part in parts:
            sums = np.concatenate((sums + part, sums - part))
        return float(np.mean(np.abs(sums) >= least))
    hits, chunk = 0, 10_000
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        signs = 1.0 - 2.0 * generator.integers(0, 2, size=(rows, len(parts)))
        hits += int(np.sum(np.abs(signs @ np.asarray(parts)) >= least))
    return (1 + hits) / (1 + draws)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values of several tests, corrected so that the chance of any false finding stays at the level (Holm, 1979).

    The k-th smallest of m is multiplied by m − k + 1, is no smaller than the one before it, and at most 1.

    :param p_values: None where there was no test, which then does not count.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        found[place] = least
    return found


def macro_f1_slopes(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C, C] derivatives of macro-F1 by the shares [C, C] of a confusion matrix (rows are labels), which sum to 1.

    With ``F_c = 2 p_cc / (r_c + s_c)``, r_c and s_c the sums of row and column c: a cell (i, j) off the diagonal moves
    F_i and F_j down, one on it moves F_i up. Macro-F1 does not change if all shares grow alike, so ``Σ p ∂f/∂p = 0``.
    """
    total = shares.sum(0) + shares.sum(1)  # [C], r_c + s_c
    seen = total > 0  # a class that does not occur has F1 = 0 whatever the draw
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=seen)
    f1 = 2.0 * np.diag(shares) * inverse
    slope = -(f1 * inverse)  # ∂F_c / ∂r_c and ∂F_c / ∂s_c
    return np.asarray((slope[:, None] + slope[None, :] + np.diag(2.0 * inverse)) / len(shares))


def macro_f1_standard_error(confusion: Sequence[Sequence[int]]) -> float:
    """The sampling error of a macro-F1, by the delta method over the cells of a confusion matrix.

    The R test rows are R draws from the C × C cells with probabilities p; macro-F1 is a function f of p, so its
    variance is ``(Σ p (∂f/∂p)² − (Σ p ∂f/∂p)²) / R``, whose second sum is 0 (`macro_f1_slopes`).

    :param confusion: [C, C] counts, rows are labels (`metrics.confusion_of`).
    :raises RunError: for an empty matrix.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    rows = counts.sum()
    if rows < 1 or counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise RunError("a standard error needs a square confusion matrix that counts test rows")
    p = counts / rows
    return math.sqrt(float((p * macro_f1_slopes(p) ** 2).sum()) / rows)
