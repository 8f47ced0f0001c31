"""Micro-batches, precision and the plain pass."""

import pytest
import torch
from _steps import MIXED, make_step

from aang_core.errors import ConfigError
from aang_core.method.gradient.engine import Engine, cut, cut_rows
from aang_core.method.gradient.metagrad import looped
from aang_core.processes import Processes


@pytest.mark.parametrize("kind", ["fused", "looped"])
@pytest.mark.parametrize("budget", [1, 9, 20, 45, 10_000])
def test_any_split_gives_the_same_gradient_and_alignment(kind, budget):
    step = make_step((5, 4, 3, 2, 2, 4, 3))
    whole = Engine(step.model, kind, 0, "fp32").aligned(
        step.batch, step.coefficients, step.dev_gradient
    )
    expected = step.gradients()
    parts = Engine(step.model, kind, budget, "fp32").aligned(
        step.batch, step.coefficients, step.dev_gradient
    )
    found = step.gradients()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11, msg=name)
    torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-9, atol=1e-12)
    for field in ("dots", "squared_norms"):
        a, b = getattr(parts.alignment, field), getattr(whole.alignment, field)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_alignments_of_single_examples_come_from_any_whole_groups():
    step = make_step((5, 4, 3, 2, 2, 4, 3))
    run = {"examples": True}
    whole = Engine(step.model, "fused", 0, "fp32")
    parts = Engine(step.model, "fused", 60, "fp32")
    one = whole.aligned(step.batch, step.coefficients, step.dev_gradient, **run)
    several = parts.aligned(step.batch, step.coefficients, step.dev_gradient, **run)
    assert len(cut(step.batch, 60)) > 1
    torch.testing.assert_close(several.examples, one.examples, rtol=1e-9, atol=1e-12)
    step.gradients()
    small = Engine(step.model, "fused", 9, "fp32")
    with pytest.raises(ConfigError, match="micro_batch_tokens"):
        small.aligned(step.batch, step.coefficients, step.dev_gradient, **run)


def test_an_examples_alignment_is_that_of_its_own_gradient():
    """Against one backward pass for each row alone."""
    step = make_step((3, 2, 2), ids=MIXED[1:3])
    result = Engine(step.model, "fused", 0, "fp32").aligned(
        step.batch, step.coefficients, step.dev_gradient, examples=True
    )
    step.gradients()
    slow = []
    for i, segment in enumerate(step.batch.segments):
        output = step.model.heads.outputs[segment.objective]
        for row in cut_rows(step.batch, i, output, 1):
            own = looped(step.model, row, torch.ones(1), step.dev_gradient)
            slow.append(own.alignment.dots[0])
            step.gradients()
    torch.testing.assert_close(result.examples, torch.stack(slow), rtol=1e-9, atol=1e-12)


def test_the_plain_pass_gives_the_same_gradient():
    step = make_step()
    engine = Engine(step.model, "fused", 30, "fp32")
    engine.aligned(step.batch, step.coefficients, step.dev_gradient)
    expected = step.gradients()
    engine.plain(step.batch, step.coefficients)
    found = step.gradients()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11, msg=name)


def test_pieces_keep_to_the_budget_where_rows_allow():
    step = make_step((5, 4, 3, 2, 2, 4, 3))
    sizes = [s.stop - s.start for s in step.batch.segments]
    for group in cut(step.batch, 40):
        assert sum(sizes[i] for i in group) <= 40 or len(group) == 1
    assert [i for group in cut(step.batch, 40) for i in group] == list(range(len(sizes)))


def test_processes_share_objectives_whole_and_evenly():
    groups = [Processes(rank, 2).shard([32, 3, 3, 3, 5, 9, 9]) for rank in range(2)]
    assert sorted(groups[0] + groups[1]) == list(range(7))
    assert groups[0] == [0]


def test_bf16_keeps_alignments_close_and_in_fp32():
    step = make_step(dtype=torch.float32, ids=MIXED[:3], rows=(4, 3, 2, 3))
    exact = Engine(step.model, "fused", 0, "fp32").aligned(
        step.batch, step.coefficients, step.dev_gradient
    )
    step.gradients()
    rough = Engine(step.model, "fused", 0, "bf16").aligned(
        step.batch, step.coefficients, step.dev_gradient
    )
    gradients = step.gradients()
    assert all(g.dtype == torch.float32 for g in gradients.values())
    assert rough.alignment.dots.dtype == torch.float64
    gap = (rough.alignment.cosines() - exact.alignment.cosines()).abs().max()
    assert 0 < float(gap) < 0.03  # bf16 has 8 bits of precision: 0.4 % a product
