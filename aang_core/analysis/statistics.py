"""How sure a comparison is: paired tests over seeds, intervals, and the smallest difference that a study could show.

All functions take plain sequences of scores and are pure; randomness comes from a generator that is passed in.
Fixed letter: S seeds.
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


def bootstrap_interval(
    first: Sequence[float],
    second: Sequence[float],
    generator: np.random.Generator,
    level: float = 0.95,
    draws: int = 10_000,
) -> tuple[float, float]:
    """Percentile interval of the mean paired difference (second − first), by resampling seeds.

    With few seeds it is too narrow (S = 3 holds three numbers); it is shown beside the t-test, not instead of it.

    :param level: coverage, in (0, 1).
    :param draws: resamples.
    :raises RunError: where the two have different numbers of seeds, or none.
    """
    delta = _differences(first, second)
    picks = generator.integers(0, len(delta), size=(draws, len(delta)))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(delta[picks].mean(axis=1), [tail, 1.0 - tail])
    return float(low), float(high)


def shown_interval(first: Sequence[float], second: Sequence[float]) -> list[float] | None:
    """`bootstrap_interval` as tables show it: always the same for the same scores; None for a single seed."""
    if len(first) < 2:
        return None
    return list(bootstrap_interval(first, second, np.random.default_rng(0)))


@cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[1000] nodes and [1000] weights on [−1, 1]; kept, since making them takes most of a second."""
    return np.polynomial.legendre.leggauss(1000)


def joined_chance(*parts: tuple[float, float]) -> tuple[float, float]:
    """(variance, degrees of freedom) of a mean that several independent sources of chance move.

    The variances add up. The degrees of freedom are those of Welch and Satterthwaite, ``V² / Σ v_i² / ν_i``: few where
    the part with few outweighs the others, many where it is small beside them.

    :param parts: (v_i, ν_i) of each source; ν_i is infinite where the variance is known.
    """
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    return variance, variance**2 / spread if spread > 0 else math.inf


def power(effect: float, std: float, seeds: int, alpha: float = 0.05) -> float:
    """The chance that a two-sided paired t-test over `seeds` seeds finds a true mean difference `effect`.

    :param std: standard deviation of the paired differences, in the unit of `effect`.
    """
    return power_at(abs(effect) / std * math.sqrt(seeds), seeds - 1, alpha)


def power_at(shift: float, freedom: float, alpha: float = 0.05) -> float:
    """The chance that a two-sided t-test with `freedom` degrees of freedom finds a true difference.

    :param shift: the difference in standard errors. :param freedom: any positive number; infinite for the normal.
    """
    from scipy.stats import chi2, norm, t

    if math.isinf(freedom):
        critical = float(norm.ppf(1.0 - alpha / 2.0))
        return float(norm.cdf(shift - critical) + norm.cdf(-shift - critical))
    critical = float(t.ppf(1.0 - alpha / 2.0, freedom))
    # Given the ratio s of sample to true deviation the statistic is normal around shift / s, so average over the
    # quantiles of s, by Gauss-Legendre. (scipy's noncentral t gives NaN for some shifts and many seeds.)
    nodes, parts = _quadrature()
    ratio = np.sqrt(chi2.ppf((nodes + 1.0) / 2.0, freedom) / freedom)
    found = norm.cdf(shift - critical * ratio) + norm.cdf(-shift - critical * ratio)
    return float(parts @ found / 2.0)


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
    return detectable_at(std / math.sqrt(seeds), seeds - 1, alpha, wanted)


def detectable_at(error: float, freedom: float, alpha: float = 0.05, wanted: float = 0.8) -> float:
    """The true difference that a t-test finds with power `wanted`, by the standard error and degrees of freedom.

    It exceeds half the width of the interval that the two make, ``t(1 − alpha/2, freedom) · error``, which a difference
    of this size would leave half the time only.
    """
    from scipy.optimize import brentq

    # In units of the error, so that the search has one scale. One degree of freedom needs the widest bracket: its
    # critical value at alpha = 5 % is 12.7.
    upper = 1.0
    while power_at(upper, freedom, alpha) < wanted:
        upper *= 2.0
    return error * float(
        brentq(lambda e: power_at(e, freedom, alpha) - wanted, 0.0, upper, xtol=1e-12)
    )


def macro_f1_standard_error(confusion: Sequence[Sequence[int]]) -> float:
    """The sampling error of a macro-F1, by the delta method over the cells of a confusion matrix.

    The R test rows are R draws from the C × C cells with probabilities p; macro-F1 is a function f of p, so its
    variance is ``(Σ p (∂f/∂p)² − (Σ p ∂f/∂p)²) / R``. With ``F_c = 2 p_cc / (r_c + s_c)``, r_c and s_c the sums
    of row and column c: a cell (i, j) off the diagonal moves F_i and F_j down, one on it moves F_i up.

    :param confusion: [C, C] counts, rows are labels (`metrics.confusion_of`).
    :raises RunError: for an empty matrix.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    rows = counts.sum()
    if rows < 1 or counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise RunError("a standard error needs a square confusion matrix that counts test rows")
    p = counts / rows
    total = p.sum(0) + p.sum(1)  # [C], r_c + s_c
    seen = total > 0  # a class that does not occur has F1 = 0 whatever the draw
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=seen)
    f1 = 2.0 * np.diag(p) * inverse
    slope = -(f1 * inverse)  # ∂F_c / ∂r_c and ∂F_c / ∂s_c
    gradient = (slope[:, None] + slope[None, :] + np.diag(2.0 * inverse)) / len(p)
    variance = float((p * gradient**2).sum() - (p * gradient).sum() ** 2)
    return math.sqrt(max(variance, 0.0) / rows)
