"""One backward pass against one per objective, in float64: dots, norms, gradients of encoder and heads."""

import attrs
import pytest
import torch
from _families import PACKED, save_family
from _steps import MIXED, make_step
from hypothesis import given, settings
from hypothesis import strategies as st

from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Hidden
from aang_core.method.gradient.engine import Engine
from aang_core.method.gradient.metagrad import (
    chosen,
    disagreement,
    fused,
    layers_of,
    looped,
    tracked,
)
from aang_core.method.gradient.tracked_layers import FusedUnsupportedError, Tape, is_short
from aang_core.testing import tiny_backbone


def assert_engines_agree(step, rtol=1e-9):
    slow = looped(step.model, step.batch, step.coefficients, step.dev_gradient)
    slow_gradients = step.gradients()
    fast = fused(step.model, step.batch, step.coefficients, step.dev_gradient, examples=True)
    fast_gradients = step.gradients()
    scale = max(float(g.abs().max()) for g in fast_gradients.values())
    for name, gradient in fast_gradients.items():
        # The loop leaves ``.grad`` empty where nothing has weight; that is a gradient of zero.
        expected = slow_gradients.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, expected, rtol=rtol, atol=rtol * scale, msg=name)
    assert slow_gradients.keys() <= fast_gradients.keys()
    a, b = fast.alignment, slow.alignment
    assert a.observed.tolist() == b.observed.tolist()
    torch.testing.assert_close(fast.losses, slow.losses, rtol=rtol, atol=rtol)
    torch.testing.assert_close(a.dots, b.dots, rtol=rtol, atol=rtol)
    torch.testing.assert_close(a.squared_norms, b.squared_norms, rtol=rtol, atol=rtol)
    assert disagreement(fast, slow) < rtol
    rows = [segment.row_stop - segment.row_start for segment in step.batch.segments]
    sums = torch.stack([part.sum() for part in fast.examples.split(rows)])
    torch.testing.assert_close(sums, a.dots, rtol=1e-8, atol=1e-10)


@given(
    rows=st.lists(st.integers(0, 4), min_size=6, max_size=6),
    first=st.integers(1, 5),
    small=st.sampled_from([1.0, 1e-3, 1e-9, 0.0]),
    policy=st.sampled_from(["per-objective", "per-output"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25)
def test_engines_agree_for_any_rows_and_weights(rows, first, small, policy, seed):
    """One row, no row, weights near zero and zero."""
    taking_part = 1 + sum(r > 0 for r in rows)
    coefficients = torch.linspace(small, 1.0, taking_part, dtype=torch.float64)
    step = make_step((first, *rows), coefficients, policy=policy, seed=seed)
    assert_engines_agree(step)


def test_one_objective_alone():
    assert_engines_agree(make_step((3, 2), [0.5, 0.5], ids=MIXED[:1]))


def test_an_objective_without_a_target_is_unobserved():
    """span-boundary on a row whose only span touches its end has nothing to predict."""
    step = make_step((2, 1), [0.5, 0.5], ids=("task/no-op/bidirectional/denoise",))
    empty = step.batch.targets[1]
    none = attrs.evolve(empty, index=empty.index[:0], value=empty.value[:0])
    segments = (step.batch.segments[0], attrs.evolve(step.batch.segments[1], count=0))
    step = attrs.evolve(
        step,
        batch=attrs.evolve(step.batch, targets=(step.batch.targets[0], none), segments=segments),
    )
    assert_engines_agree(step)
    result = fused(step.model, step.batch, step.coefficients, step.dev_gradient)
    assert result.alignment.observed.tolist() == [True, False]
    assert float(result.alignment.dots[1]) == 0.0


@pytest.mark.parametrize("decoder", ["tied", "untied"])
def test_a_tied_decoder_enters_the_gradient_but_not_the_alignment(decoder):
    step = make_step(denoise={"decoder": decoder}, next_token={"decoder": decoder})
    assert_engines_agree(step)


def test_a_heads_use_of_a_body_parameter_is_no_body_gradient():
    """The tied embedding gets more than what flows through the hidden states; the dot counts only that."""
    step = make_step((1, 4), [1e-12, 1.0], ids=("task/mask/bidirectional/denoise",))
    result = fused(step.model, step.batch, step.coefficients, step.dev_gradient)
    body = dict(step.model.backbone.body.named_parameters())
    with_head = sum(float((body[n].grad * v).sum()) for n, v in step.dev_gradient.items())
    assert abs(float(result.alignment.dots[1]) - with_head) > 1e-6
    step.gradients()


def test_frozen_layers_take_no_part():
    backbone = tiny_backbone(torch.float64)
    for parameter in [*backbone.body.words.parameters(), *backbone.body.layers[0].parameters()]:
        parameter.requires_grad_(False)
    step = make_step(backbone=backbone)
    assert not any(name.startswith("layers.0") for name in step.dev_gradient)
    assert_engines_agree(step)


@pytest.mark.parametrize(
    ("family", "checkpointing"),
    [(f, False) for f in PACKED] + [(f, True) for f in PACKED if f != "albert"],
)
def test_engines_agree_on_encoders_of_transformers(family, checkpointing, tmp_path):
    from aang_text.encoder.backbone import load

    backbone = load(
        str(save_family(tmp_path / family, family)),
        BackboneSettings(dtype="float64", device="cpu", checkpointing=checkpointing),
    )
    step = make_step(backbone=backbone)
    backbone.body.train(checkpointing)  # transformers checkpoints in training mode alone
    for module in backbone.body.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    backbone.body.config.attention_probs_dropout_prob = 0.0
    if family == "albert":  # one layer applied three times: its dots add, its norms do not
        with pytest.raises(FusedUnsupportedError, match="applied 3 times"):
            fused(step.model, step.batch, step.coefficients, step.dev_gradient)
        return
    assert_engines_agree(step, rtol=1e-8)


@pytest.mark.parametrize("layers", ["last-1", "last-2", "every-2"])
def test_engines_agree_over_some_layers_alone(layers):
    """``.grad`` is that of the whole body; products are also those of autograd's gradients of these layers."""
    step = make_step(alignment_layers=layers)
    assert_engines_agree(step)
    names = list(step.dev_gradient)
    embeddings, first, last = layers_of(step.model.body())
    expected = {"last-1": last, "last-2": first + last, "every-2": embeddings + last}
    assert names == expected[layers]
    result = fused(step.model, step.batch, step.coefficients, step.dev_gradient).alignment
    for k in range(len(step.batch.segments)):
        hidden = step.model.backbone.encode(step.batch)
        leaf = hidden.states.detach().requires_grad_()
        loss = step.model.heads.losses(Hidden(leaf, hidden.offsets), step.batch)[k]
        compared = list(step.model.compared().values())
        own = torch.autograd.grad(hidden.states, compared, torch.autograd.grad(loss, leaf))
        dots = sum((g * step.dev_gradient[n]).sum() for n, g in zip(names, own, strict=True))
        squares = sum(g.square().sum() for g in own)
        torch.testing.assert_close(result.dots[k], dots, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(result.squared_norms[k], squares, rtol=1e-10, atol=1e-13)


def test_layers_without_alignments_run_as_they_are():
    """They write nothing, need no tracked form, and get the gradient that they had."""
    step = make_step(alignment_layers="last-1")
    body = step.model.backbone.body
    body.layers[0].extra = torch.nn.Conv1d(1, 1, 1).double()  # of an unknown kind
    tape = Tape.of(step.batch, step.model.body(), step.dev_gradient, examples=False)
    with tracked(body, tape):
        seen = [name for name, module in body.named_modules() if "forward" in vars(module)]
    assert seen
    assert all(name.startswith("layers.1.") or name == "norm" for name in seen)
    engine = Engine(step.model, "fused", 0, "fp32")
    assert engine.check(step.batch, step.coefficients, step.dev_gradient) == ""


@pytest.mark.parametrize("chosen", [set(), {0}, {2, 3, 5}, set(range(7))])
def test_short_segments_give_the_same_products(chosen, monkeypatch):
    """Whichever segments go without a gradient of their own, all is as if none did."""
    from aang_core.method.gradient import tracked_layers

    step = make_step()
    lengths = [segment.stop - segment.start for segment in step.batch.segments]
    short = {lengths[s] for s in chosen}

    def run(is_short):
        monkeypatch.setattr(tracked_layers, "is_short", is_short)
        return fused(step.model, step.batch, step.coefficients, step.dev_gradient), step.gradients()

    (expected, gradients), (found, own) = run(lambda *_: False), run(lambda n, _: n in short)
    for field in ("dots", "squared_norms"):
        a, b = getattr(found.alignment, field), getattr(expected.alignment, field)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    for name in gradients:
        torch.testing.assert_close(own[name], gradients[name], rtol=1e-12, atol=1e-15)


def test_a_segment_is_short_up_to_what_its_products_cost():
    assert [n for n in range(1, 99) if is_short(n, (384, 384))] == list(range(1, 18))
    assert not is_short(8, (4, 4))  # Gram matrices cost more than so small a gradient


def test_layers_are_told_by_the_first_number_in_a_name():
    names = ["emb.word", "emb.norm", "enc.layer.0.q.w", "enc.layer.0.list.1.w", "enc.layer.1.q.w"]
    found = layers_of([*names, "last.norm", "tail.0.w"])
    assert found == [names[:2], names[2:4], [names[4], "last.norm"], ["tail.0.w"]]
    assert layers_of(["weight"]) == [["weight"]]
    assert layers_of([]) == []


def test_every_nth_layer_and_the_last_are_chosen():
    seven = list(range(7))
    assert chosen(seven, "all") == seven
    assert chosen(seven, "every-3") == [0, 3, 6]
    assert chosen(seven[:6], "every-3") == [0, 3, 5]
    assert chosen(seven[:2], "every-3") == [0, 1]
    assert chosen(seven, "every-2") == [0, 2, 4, 6]
    assert chosen(seven, "last-2") == [5, 6]
    assert chosen(seven[:1], "last-2") == [0]


def test_the_engine_falls_back_to_the_loop_and_says_why():
    backbone = tiny_backbone(torch.float64)
    backbone.body.extra = torch.nn.Conv1d(1, 1, 1).double()  # a trainable layer of an unknown kind
    step = make_step(backbone=backbone)
    engine = Engine(step.model, "fused", 0, "fp32")
    reason = engine.check(step.batch, step.coefficients, step.dev_gradient)
    assert "extra is a Conv1d" in reason
    assert engine.kind == "looped"
    assert not step.gradients()


def test_the_check_finds_a_wrong_gradient(monkeypatch):
    """A layer that mixes rows behind the engine's back makes the two disagree."""
    from aang_core.method.gradient import tracked_layers

    step = make_step()
    right = tracked_layers.matrix_gradient
    monkeypatch.setattr(
        tracked_layers, "matrix_gradient", lambda tape, name, g, a: right(tape, name, g * 1.01, a)
    )
    engine = Engine(step.model, "fused", 0, "fp32")
    assert "differ from the loop's" in engine.check(
        step.batch, step.coefficients, step.dev_gradient
    )


def test_a_layer_that_sees_other_positions_is_refused():
    step = make_step()
    body = step.model.backbone.body
    tape = Tape.of(step.batch, step.model.body(), step.dev_gradient, examples=False)
    with tracked(body, tape), pytest.raises(FusedUnsupportedError, match="sees 3 positions"):
        body.layers[0].query(torch.zeros(3, 32, dtype=torch.float64))
    assert "forward" not in vars(body.layers[0].query)  # restored
