"""The schedule against its shape: where it starts, peaks and ends, and that it is linear."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aang_core.errors import ConfigError
from aang_core.train.optimizer import linear_warmup_decay

totals = st.integers(1, 500)
shares = st.floats(0.0, 1.0)


@given(total=totals, warmup=shares)
def test_it_stays_within_its_bounds_and_every_step_moves(total, warmup):
    factors = [linear_warmup_decay(step, total, warmup) for step in range(total)]
    assert all(0.0 < factor <= 1.0 for factor in factors)
    assert max(factors) == 1.0


@given(total=totals, warmup=shares)
def test_it_is_zero_once_the_run_is_over(total, warmup):
    assert linear_warmup_decay(total, total, warmup) == 0.0
    assert linear_warmup_decay(total + 7, total, warmup) == 0.0


@given(total=totals, warmup=shares)
def test_it_is_linear_on_both_sides_of_the_peak(total, warmup):
    factors = np.array([linear_warmup_decay(step, total, warmup) for step in range(total + 1)])
    rising = round(warmup * total)
    assert np.allclose(factors[:rising], np.arange(1, rising + 1) / max(rising, 1), atol=1e-12)
    if rising < total:
        assert np.allclose(factors[rising:], np.linspace(1.0, 0.0, total - rising + 1), atol=1e-12)


def test_without_warmup_it_starts_at_the_full_rate():
    assert linear_warmup_decay(0, 10, 0.0) == 1.0


@pytest.mark.parametrize(
    ("step", "total", "warmup"), [(-1, 10, 0.1), (0, 0, 0.1), (0, 10, -0.1), (0, 10, 1.5)]
)
def test_what_makes_no_schedule_is_refused(step, total, warmup):
    with pytest.raises(ConfigError, match=f"step={step}, total={total}, warmup={warmup}"):
        linear_warmup_decay(step, total, warmup)
