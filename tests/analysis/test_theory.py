"""The bound against the proof's own minimisation, and the two prescriptions that the paper draws from it."""

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aang_core.analysis.theory import StabilitySetting, stability_bound
from aang_core.errors import ConfigError

# A pair with a small λ*β* and a small Δ, so that the first pair gives the tighter bound.
SETTING = StabilitySetting(
    end_task_share=0.1,
    end_task_rows=300,
    auxiliary_rows=3000,
    steps=1000,
    step_size=0.5,
    lipschitz=0.01,
    end_task_smoothness=40.0,
    auxiliary_smoothness=1.0,
    dissimilarity=0.02,
)

settings = st.builds(
    StabilitySetting,
    end_task_share=st.floats(0.01, 0.99),
    end_task_rows=st.integers(2, 1000),
    auxiliary_rows=st.integers(0, 10_000),
    steps=st.integers(1, 10_000),
    step_size=st.floats(0.01, 2.0),
    lipschitz=st.floats(0.01, 5.0),
    end_task_smoothness=st.floats(0.1, 10.0),
    auxiliary_smoothness=st.floats(0.1, 10.0),
    dissimilarity=st.floats(0.0, 5.0),
)


def minimum_over_t0(s, smoothness, drift):
    """The proof's inequality 11, minimised over t₀ on a fine grid instead of by its derivative."""
    t0 = np.logspace(-30, 30, 600_001)
    rho = 2 * s.gamma * s.lipschitz + (s.rows - s.gamma) * drift
    later = s.lipschitz * rho / (smoothness * (s.rows - s.gamma))
    with np.errstate(over="ignore"):
        growth = (s.steps / t0) ** (s.step_size * smoothness)
    return (s.gamma * t0 / s.rows + later * growth).min()


@given(setting=settings)
def test_it_is_the_minimum_of_the_proofs_last_inequality(setting):
    found = stability_bound(setting)
    slow = minimum_over_t0(setting, found.smoothness, found.drift)
    assert found.value == pytest.approx(slow, rel=1e-6)


@given(setting=settings, more=st.floats(0.01, 10.0))
def test_more_dissimilar_auxiliaries_never_tighten_it(setting, more):
    further = attrs.evolve(setting, dissimilarity=setting.dissimilarity + more)
    assert stability_bound(further).value >= stability_bound(setting).value


def test_prescription_one_smaller_dissimilarity_tightens_it():
    values = [
        stability_bound(attrs.evolve(SETTING, dissimilarity=delta)).value
        for delta in (0.0, 0.01, 0.02)
    ]
    assert stability_bound(SETTING).drift > 0  # the pair that knows Δ is at work
    assert values[0] < values[1] < values[2]


@given(setting=settings, factor=st.integers(2, 20))
def test_prescription_two_more_auxiliary_data_at_fixed_gamma_tightens_it(setting, factor):
    # The share falls as the rows grow, so that γ = λ_e N′ / N_e stays. The smoothnesses are made equal and Δ
    # is left to the second pair: there λ_e does not enter β̄, and all that moves is N′.
    same = attrs.evolve(
        setting, auxiliary_smoothness=setting.end_task_smoothness, dissimilarity=1e9
    )
    extra = same.rows * (factor - 1)
    more = attrs.evolve(
        same,
        auxiliary_rows=same.auxiliary_rows + extra,
        end_task_share=same.end_task_share / factor,
    )
    assert more.gamma == pytest.approx(same.gamma)
    assert stability_bound(more).value < stability_bound(same).value


def test_without_auxiliaries_it_knows_only_the_end_task():
    alone = attrs.evolve(SETTING, end_task_share=1.0, auxiliary_rows=0)
    found = stability_bound(alone)
    assert (found.smoothness, found.drift) == (40.0, 0.0)
    assert found.value == stability_bound(attrs.evolve(alone, dissimilarity=9.0)).value


def test_never_drawing_the_end_task_makes_it_zero():
    assert stability_bound(attrs.evolve(SETTING, end_task_share=0.0)).value == 0.0


def test_a_bound_above_one_is_called_vacuous():
    assert not stability_bound(attrs.evolve(SETTING, steps=1)).vacuous
    assert stability_bound(attrs.evolve(SETTING, steps=10**9, lipschitz=10.0)).vacuous


def test_every_fault_is_named_at_once():
    with pytest.raises(ConfigError) as raised:
        attrs.evolve(SETTING, steps=0, lipschitz=-1.0, end_task_share=2.0)
    for part in ("lipschitz > 0 (found -1.0)", "steps >= 1 (found 0)", "(found 2.0)"):
        assert part in str(raised.value)


def test_one_row_that_is_always_drawn_has_no_bound():
    with pytest.raises(ConfigError, match="end_task_share < end_task_rows"):
        attrs.evolve(SETTING, end_task_share=1.0, end_task_rows=1)
