"""Row shares: who gets how many, and that the expected coefficient is the weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aang_core.batch.row_shares import RowNeed, share_rows

needs_of = st.builds(RowNeed, st.integers(1, 4), st.integers(1, 2))
problems = st.lists(st.tuples(st.floats(0.01, 1.0), needs_of), min_size=1, max_size=9)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(problems, st.integers(1, 80), st.sampled_from(["weight", "equal"]))
def test_everyone_gets_a_unit_and_the_rest_goes_by_weight(problem, total, mode):
    weights = torch.tensor([w for w, _ in problem], dtype=torch.float64)
    weights /= weights.sum()
    needs = [need for _, need in problem]
    shared = share_rows(weights, total, needs, mode, generator())
    least = sum(need.unit for need in needs)
    assert sum(shared.rows) <= max(total, least)
    assert max(total, least) - sum(shared.rows) < 2
    for rows, need in zip(shared.rows, needs, strict=True):
        assert rows >= need.unit
        assert rows % need.multiple == 0
    torch.testing.assert_close(shared.coefficients, weights)


def test_largest_remainder_by_hand():
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert share_rows(weights, 10, [RowNeed()] * 3, "weight", generator()).rows == (5, 3, 2)
    assert share_rows(weights, 10, [RowNeed()] * 3, "equal", generator()).rows == (4, 3, 3)
    assert share_rows(
        weights, 10, [RowNeed(), RowNeed(4, 2), RowNeed()], "weight", generator()
    ).rows == (5, 4, 1)


@pytest.mark.parametrize("units", [(1, 1, 1, 1), (1, 2, 4, 1)])
def test_systematic_rows_expect_the_weights(units):
    weights = torch.tensor([0.55, 0.3, 0.1, 0.05], dtype=torch.float64)
    needs = [RowNeed(unit) for unit in units]
    total, draws = 8, 4000
    mean = torch.zeros(4, dtype=torch.float64)
    for seed in range(draws):
        shared = share_rows(weights, total, needs, "systematic", generator(seed))
        assert all(r % u == 0 for r, u in zip(shared.rows, units, strict=True))
        mean += shared.coefficients / draws
    # The standard error of a share is below unit / total / sqrt(draws) = 0.008.
    torch.testing.assert_close(mean, weights, rtol=0, atol=0.025)


def test_more_objectives_than_rows_fit_only_systematically():
    weights = torch.full((200,), 1 / 200, dtype=torch.float64)
    shared = share_rows(weights, 64, [RowNeed()] * 200, "auto", generator())
    assert sum(shared.rows) == 64
    assert set(shared.rows) == {0, 1}
