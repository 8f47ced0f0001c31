"""Statistics against closed forms, tables and simulation."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from aang_core.analysis.statistics import (
    bootstrap_interval,
    detectable_at,
    joined_chance,
    macro_f1_standard_error,
    paired_t_test,
    power,
    smallest_detectable_difference,
)
from aang_core.errors import RunError
from aang_core.markdown import interval_of, mean_and_std, p_value_of


def test_paired_t_test_equals_its_closed_form_for_three_seeds():
    found = paired_t_test([70.0, 71.0, 72.0], [71.0, 73.0, 75.0])  # differences 1, 2, 3
    t = 2.0 / (1.0 / math.sqrt(3))
    assert (found.mean, found.std) == pytest.approx((2.0, 1.0))
    assert found.t == pytest.approx(t, rel=1e-12)
    # two degrees of freedom: P(|T| > t) = 1 − t / √(t² + 2)
    assert found.p_value == pytest.approx(1.0 - t / math.sqrt(t * t + 2.0), rel=1e-9)


def test_swapping_the_sides_turns_the_sign_and_keeps_the_p_value():
    one, two = [1.0, 4.0, 2.0, 8.0], [2.0, 3.0, 5.0, 9.5]
    there, back = paired_t_test(one, two), paired_t_test(two, one)
    assert there.mean == -back.mean
    assert there.p_value == pytest.approx(back.p_value, rel=1e-12)


@pytest.mark.parametrize(("one", "two"), [([1.0], [2.0]), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])])
def test_what_does_not_vary_gives_no_p_value(one, two):
    found = paired_t_test(one, two)
    assert found.t is None
    assert found.p_value is None


@pytest.mark.parametrize(("one", "two"), [([1.0, 2.0], [1.0]), ([], [])])
def test_unpaired_scores_are_refused(one, two):
    with pytest.raises(RunError, match=f"found {len(one)} and {len(two)} scores"):
        paired_t_test(one, two)


def test_bootstrap_interval_approaches_the_normal_one():
    generator = np.random.default_rng(3)
    delta = generator.normal(0.5, 2.0, size=400)
    low, high = bootstrap_interval(np.zeros(400), delta, np.random.default_rng(0))
    half = 1.959964 * delta.std(ddof=0) / math.sqrt(400)
    assert low == pytest.approx(delta.mean() - half, abs=0.02)
    assert high == pytest.approx(delta.mean() + half, abs=0.02)


def test_bootstrap_interval_depends_on_its_generator_alone():
    one, two = [1.0, 2.0, 3.0], [2.0, 2.5, 5.0]
    again = [bootstrap_interval(one, two, np.random.default_rng(7)) for _ in range(2)]
    assert again[0] == again[1]
    assert bootstrap_interval([1.0], [3.0], np.random.default_rng(7)) == (2.0, 2.0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
def test_the_smallest_detectable_difference_has_the_power_asked_for(seeds):
    found = smallest_detectable_difference(2.0, seeds)
    assert power(found, 2.0, seeds) == pytest.approx(0.8, abs=1e-9)


def test_the_smallest_detectable_difference_for_many_seeds_is_the_normal_one():
    # (z_0.975 + z_0.8) · σ / √S
    expected = (1.959964 + 0.841621) / math.sqrt(10_000)
    assert smallest_detectable_difference(1.0, 10_000) == pytest.approx(expected, rel=1e-3)


def test_power_agrees_with_simulation():
    generator = np.random.default_rng(11)
    delta = generator.normal(1.5, 1.0, size=(4000, 5))
    t = delta.mean(1) / (delta.std(1, ddof=1) / math.sqrt(5))
    assert power(1.5, 1.0, 5) == pytest.approx(np.mean(np.abs(t) > 2.776445), abs=0.025)
    assert power(0.0, 1.0, 5) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("freedom", [1, 1.7, 6.3, 50, math.inf])
def test_a_detectable_difference_at_any_degrees_of_freedom_agrees_with_simulation(freedom):
    generator, draws = np.random.default_rng(5), 40_000
    found = detectable_at(2.0, freedom) / 2.0
    ratio = 1.0 if math.isinf(freedom) else np.sqrt(generator.chisquare(freedom, draws) / freedom)
    t = (generator.normal(size=draws) + found) / ratio
    assert np.mean(np.abs(t) > student.ppf(0.975, freedom)) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("seeds", "texts"), [(0.05, 1.0), (1.0, 1.0), (20.0, 1.0)])
def test_two_sources_of_chance_give_about_the_power_asked_for(seeds, texts):
    """Of three seeds: the interval of Welch and Satterthwaite leaves out zero as often as it should."""
    generator, draws = np.random.default_rng(6), 40_000
    variance, freedom = joined_chance((seeds, 2), (texts, math.inf))
    assert freedom == pytest.approx((seeds + texts) ** 2 / (seeds**2 / 2))
    mean = generator.normal(detectable_at(math.sqrt(variance), freedom), math.sqrt(variance), draws)
    seen = seeds * generator.chisquare(2, draws) / 2
    own = (seen + texts) ** 2 / (seen**2 / 2)
    half = student.ppf(0.975, own) * np.sqrt(seen + texts)
    assert np.mean(np.abs(mean) > half) == pytest.approx(0.8, abs=0.035)


def test_sources_whose_variance_is_known_leave_the_normal():
    assert joined_chance((1.0, math.inf), (2.0, math.inf)) == (3.0, math.inf)


@pytest.mark.parametrize(("std", "seeds"), [(1.0, 1), (-1.0, 3)])
def test_a_detectable_difference_needs_two_seeds(std, seeds):
    with pytest.raises(RunError, match="at least two seeds"):
        smallest_detectable_difference(std, seeds)


def macro_f1(counts):
    both = counts.sum(-1) + counts.sum(-2)
    diagonal = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.divide(2.0 * diagonal, both, out=np.zeros(both.shape), where=both > 0).mean(-1)


def test_macro_f1_error_agrees_with_resampling():
    counts = np.array([[60, 10, 5], [8, 90, 20], [3, 30, 74]])
    draws = np.random.default_rng(5).multinomial(300, counts.ravel() / 300, size=20_000)
    simulated = macro_f1(draws.reshape(-1, 3, 3)).std()
    assert macro_f1_standard_error(counts) == pytest.approx(simulated, rel=0.03)


def test_macro_f1_error_falls_with_the_root_of_the_rows():
    counts = np.array([[6, 1], [2, 9]])
    assert macro_f1_standard_error(counts * 100) == pytest.approx(
        macro_f1_standard_error(counts) / 10, rel=1e-12
    )


def test_macro_f1_error_of_a_perfect_or_an_absent_class():
    assert macro_f1_standard_error([[5, 0, 0], [0, 7, 0], [0, 0, 0]]) == pytest.approx(
        0.0, abs=1e-9
    )
    with pytest.raises(RunError, match="square confusion matrix"):
        macro_f1_standard_error([[0]])


def test_scores_are_written_one_way():
    assert mean_and_std({"mean": 0.81234, "std": 0.01019}) == "0.8123 ± 0.0102"
    assert mean_and_std({"mean": 0.612, "std": None}, 1, 100) == "61.2"
    assert mean_and_std(None) == mean_and_std({"mean": None, "std": None}) == ""
    assert interval_of([-0.012, 0.031]) == "-0.0120 to +0.0310"
    assert interval_of([-0.012, 0.031], 1, 100) == "-1.2 to +3.1"
    assert (interval_of(None), p_value_of(None), p_value_of(0.0312)) == ("", "", "0.031")
