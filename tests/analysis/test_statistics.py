"""Statistics against closed forms, tables and simulation."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from aang_core.analysis.statistics import (
    Chance,
    macro_f1_slopes,
    macro_f1_standard_error,
    paired_t_test,
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


def test_the_interval_of_seeds_alone_is_students():
    delta = [0.01, 0.03, -0.01, 0.02]
    found = Chance.of(delta).interval(np.mean(delta))
    expected = student.interval(0.95, 3, loc=np.mean(delta), scale=np.std(delta, ddof=1) / 2)
    assert found == pytest.approx(expected)


def test_the_interval_of_texts_alone_is_the_normal_one_and_of_nothing_there_is_none():
    assert Chance.of([0.5], texts=0.04).interval(0.5) == pytest.approx(
        norm.interval(0.95, 0.5, 0.2)
    )
    assert Chance.of([0.1 + 0.2, 0.3]).interval(0.3) is None
    assert Chance.of([0.5]).detectable() is None


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.75, 0.98])
def test_an_interval_leaves_out_the_truth_at_most_as_often_as_it_says(seeds, share):
    """Welch and Satterthwaite's left it out in 10 to 13 % of cases with two seeds whose chance outweighs the texts'."""
    generator, draws = np.random.default_rng(1), 20_000
    means = generator.normal(0.0, 1.0, draws)
    ratios = generator.chisquare(seeds - 1, draws) / (seeds - 1)
    half = Chance(seeds=share, freedom=seeds - 1, texts=1 - share)._half_widths(ratios, 0.05)
    assert 0.02 < np.mean(np.abs(means) > half) < 0.065


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
def test_the_smallest_detectable_difference_has_the_power_asked_for(seeds):
    found = smallest_detectable_difference(2.0, seeds)
    chance = Chance(seeds=4.0 / seeds, freedom=seeds - 1)
    assert chance.power(found) == pytest.approx(0.8, abs=1e-9)


def test_the_smallest_detectable_difference_for_many_seeds_is_the_normal_one():
    # (z_0.975 + z_0.8) · σ / √S
    expected = (1.959964 + 0.841621) / math.sqrt(10_000)
    assert smallest_detectable_difference(1.0, 10_000) == pytest.approx(expected, rel=1e-3)


def test_power_agrees_with_simulation():
    generator = np.random.default_rng(11)
    delta = generator.normal(1.5, 1.0, size=(4000, 5))
    t = delta.mean(1) / (delta.std(1, ddof=1) / math.sqrt(5))
    chance = Chance(seeds=1.0 / 5, freedom=4)
    assert chance.power(1.5) == pytest.approx(np.mean(np.abs(t) > 2.776445), abs=0.025)
    assert chance.power(0.0) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("freedom", [1, 2, 9, 50])
@pytest.mark.parametrize(("seeds", "texts"), [(0.05, 1.0), (1.0, 1.0), (20.0, 1.0), (1.0, 0.0)])
def test_a_detectable_difference_is_seen_four_times_out_of_five(seeds, texts, freedom):
    generator, draws = np.random.default_rng(6), 40_000
    chance = Chance(seeds=seeds, freedom=freedom, texts=texts)
    mean = generator.normal(chance.detectable(), chance.error, draws)
    variance = seeds * generator.chisquare(freedom, draws) / freedom
    half = [Chance(seeds=v, freedom=freedom, texts=texts).interval(0.0)[1] for v in variance[:500]]
    widths = chance._half_widths(variance / seeds, 0.05)
    assert widths[:500] == pytest.approx(half)
    assert np.mean(np.abs(mean) > widths) == pytest.approx(0.8, abs=0.01)


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


def test_slopes_of_macro_f1_are_its_differences():
    shares = np.array([[60.0, 10, 5], [8, 90, 20], [3, 30, 74]]) / 300
    slopes = macro_f1_slopes(shares)
    for cell in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[cell] = 1e-6
        slow = (macro_f1(shares + step) - macro_f1(shares - step)) / 2e-6
        assert slopes[cell] == pytest.approx(slow, abs=1e-8)
    assert (shares * slopes).sum() == pytest.approx(0.0, abs=1e-12)


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
