"""Weights: the simplex, the factored logits, every kind of step against its own formula."""

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aang_core.config.settings import Meta
from aang_core.method.gradient.metagrad import Alignment
from aang_core.method.weights.weighting import Factors, WeightState, observe, updated
from aang_core.registry.records import STAGES

IDS = tuple(
    f"task/{t}/{r}/{o}"
    for t in ("mask", "no-op")
    for r in ("bidirectional", "left-to-right", "random-factorized")
    for o in ("denoise", "end-task")
    if not (o == "end-task" and r == "left-to-right")
)
FACTORS = Factors.of(IDS)
K = len(IDS)


def aligned(dots, norms=None, observed=None):
    """The end-task first."""
    dots = torch.tensor(dots, dtype=torch.float64)
    return Alignment(
        dots=dots,
        squared_norms=torch.ones_like(dots) if norms is None else torch.tensor(norms) ** 2,
        observed=torch.ones(len(dots), dtype=torch.bool)
        if observed is None
        else torch.tensor(observed),
        dev_norm=torch.tensor(1.0, dtype=torch.float64),
    )


def stepped(meta, dots, state=None, sampled=None, **kwargs):
    state = state or WeightState.initial(FACTORS)
    sampled = torch.arange(K) if sampled is None else torch.tensor(sampled)
    weights = state.weights(FACTORS, sampled)
    return updated(observe(state, aligned(dots, **kwargs), sampled, weights, meta), FACTORS, meta)


signals = st.lists(st.floats(-1, 1), min_size=K + 1, max_size=K + 1)


@given(signals, st.sampled_from(["direct", "softmax", "exponentiated"]), st.booleans())
def test_weights_stay_on_the_simplex(dots, kind, factored):
    state = stepped(Meta(logit_step=kind, factored=factored, factor_lr=1.0), dots)
    weights = state.weights(FACTORS)
    assert bool((weights >= 0).all())
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    assert 0 < state.end_task_weight < 1


@given(signals, st.sampled_from(["direct", "softmax", "exponentiated"]))
def test_the_order_of_objectives_does_not_matter(dots, kind):
    meta = Meta(logit_step=kind, factor_lr=0.7)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(3))
    plain = stepped(meta, dots)
    shuffled = stepped(
        meta, [dots[0], *(dots[1 + k] for k in order.tolist())], sampled=order.tolist()
    )
    torch.testing.assert_close(
        plain.weights(FACTORS), shuffled.weights(FACTORS), rtol=1e-12, atol=0
    )


def test_a_constant_on_every_logit_changes_no_weight():
    state = stepped(Meta(), [0.1 * i for i in range(K + 1)])
    moved = attrs.evolve(state, objectives=state.objectives + 3.0)
    torch.testing.assert_close(moved.weights(FACTORS), state.weights(FACTORS), rtol=1e-12, atol=0)


def test_direct_step_by_hand():
    """W_all gets lr · a_k, each primitive lr times the mean over the objectives that have it."""
    dots = [0.3, *(0.1 * i for i in range(K))]
    state = stepped(Meta(factor_lr=0.5, end_task_lr=0.2, alignment="dot"), dots)
    own = 0.5 * torch.tensor(dots[1:], dtype=torch.float64)
    torch.testing.assert_close(state.objectives, own)
    for stage in STAGES:
        for i, name in enumerate(FACTORS.names[stage]):
            having = [k for k, id_ in enumerate(IDS) if id_.split("/")[STAGES.index(stage)] == name]
            assert float(state.stages[stage][i]) == pytest.approx(float(own[having].mean()))
    weighted = sum(dots[1:]) / K
    assert state.end_task.tolist() == pytest.approx([0.2 * 0.3, 0.2 * weighted])


def test_the_mean_over_a_primitive_does_not_grow_with_its_objectives_and_the_sum_does():
    dots = [0.0] + [1.0] * K
    mean = stepped(Meta(factor_lr=1.0), dots).stages["data"]
    total = stepped(Meta(factor_lr=1.0, factor_reduce="sum"), dots).stages["data"]
    assert mean.tolist() == [1.0]
    assert total.tolist() == [float(K)]


def test_softmax_step_is_the_gradient_through_the_softmax():
    """Against autograd: the gradient of ``Σ w_k a_k`` with respect to the logits."""
    dots = [0.5, *(0.3 * (-1) ** i * i for i in range(K))]
    state = stepped(Meta(factor_lr=0.3), [0.1] * (K + 1))
    meta = Meta(
        logit_step="softmax", factor_lr=0.7, end_task_lr=0.4, alignment="dot", factored=False
    )
    moved = stepped(
        meta, dots, state=attrs.evolve(state, objectives=torch.linspace(-1, 1, K).double())
    )
    logits = torch.linspace(-1, 1, K).double().requires_grad_()
    signal = torch.tensor(dots[1:], dtype=torch.float64)
    shared = torch.stack([state.stages[s][FACTORS.members[s]] for s in STAGES]).sum(0)
    (gradient,) = torch.autograd.grad((torch.softmax(logits + shared, 0) * signal).sum(), logits)
    torch.testing.assert_close(moved.objectives - logits.detach(), 0.7 * gradient)
    pair = state.end_task.clone().requires_grad_()
    auxiliary = float((torch.softmax(logits.detach() + shared, 0) * signal).sum())
    value = (torch.softmax(pair, 0) * torch.tensor([dots[0], auxiliary], dtype=torch.float64)).sum()
    (gradient,) = torch.autograd.grad(value, pair)
    torch.testing.assert_close(moved.end_task - state.end_task, 0.4 * gradient)


def test_exponentiated_step_multiplies_weights_and_keeps_the_sum_of_the_observed():
    sampled, dots = [1, 4, 6], [0.0, 1.0, -1.0, 0.5]
    before = WeightState.initial(FACTORS)
    meta = Meta(logit_step="exponentiated", factor_lr=0.8, alignment="dot")
    after = stepped(meta, dots, sampled=sampled)
    old, new = before.weights(FACTORS), after.weights(FACTORS)
    raw = old[sampled] * torch.exp(0.8 * torch.tensor(dots[1:], dtype=torch.float64))
    torch.testing.assert_close(new[sampled], raw / raw.sum() * old[sampled].sum())
    rest = [k for k in range(K) if k not in sampled]
    torch.testing.assert_close(new[rest], old[rest])
    assert all(float(after.stages[stage].abs().sum()) == 0 for stage in STAGES)


def test_an_unobserved_objective_is_not_a_zero():
    """It is left out of the means, and its own logit rests."""
    observed = [True, *(k != 2 for k in range(K))]
    dots = [0.0] + [1.0] * K
    state = stepped(Meta(factor_lr=1.0), dots, observed=observed)
    assert float(state.objectives[2]) == 0.0
    assert state.stages["data"].tolist() == [1.0]


def test_updates_wait_for_the_window_and_use_its_mean():
    meta = Meta(update_every=3, factor_lr=1.0, factored=False, alignment="dot")
    state = WeightState.initial(FACTORS)
    for value in (0.3, 0.6, 0.9):
        assert float(state.objectives.abs().sum()) == 0.0
        state = stepped(meta, [0.0] + [value] * K, state=state)
    assert state.objectives.tolist() == pytest.approx([0.6] * K)


def test_cosine_forgets_the_norm_and_dot_does_not():
    norms, dots = [1.0] + [4.0] * K, [0.0] + [2.0] * K
    cosine = stepped(Meta(alignment="cosine", factor_lr=1.0, factored=False), dots, norms=norms)
    dot = stepped(Meta(alignment="dot", factor_lr=1.0, factored=False), dots, norms=norms)
    assert cosine.objectives.tolist() == pytest.approx([0.5] * K)
    assert dot.objectives.tolist() == pytest.approx([2.0] * K)


def test_balance_is_the_clamped_running_ratio_of_norms():
    state = stepped(Meta(), [0.1] * (K + 1), norms=[2.0, 1.0, 4.0, 2000.0, *([0.001] * (K - 3))])
    scale = state.balance(torch.arange(K))
    assert scale[:4].tolist() == pytest.approx([2.0, 0.5, 0.1, 10.0])
    fresh = WeightState.initial(FACTORS).balance(torch.arange(K))
    assert fresh.tolist() == [1.0] * K
