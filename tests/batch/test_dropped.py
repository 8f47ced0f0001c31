"""Positions whose input embedding is zero: carried wherever a stream is cut, and without a gradient."""

import attrs
import pytest
import torch
from _digits import backbone as image_encoder
from _digits import rows_of, small_task
from _steps import bind, make_step

from aang_core.batch.checks import BrokenContract, check_packed
from aang_core.batch.packing import fuse, pack, plain_batch, prepare
from aang_core.check.sanity import visible_targets
from aang_core.method.gradient.engine import cut_rows
from aang_core.method.gradient.metagrad import disagreement, fused, looped
from aang_core.testing import tiny_backbone, tiny_task

CUTOFF = "task/cutoff/bidirectional/denoise"
IDS = ("task/mask/bidirectional/denoise", CUTOFF, "task/noise-embeddings/bidirectional/denoise")


@pytest.fixture(scope="module")
def pieces():
    backbone = tiny_backbone(torch.float64)
    objectives = bind(tiny_task(), backbone, IDS, cutoff={"rate": 0.4})
    draw = torch.Generator().manual_seed(0)
    return backbone, objectives, [prepare(each, 3, draw) for each in objectives]


def test_a_stream_and_its_parts_carry_it(pieces):
    _, objectives, made = pieces
    batch = fuse(list(enumerate(made)))
    own = made[1].packed.dropped
    before, behind = (torch.zeros(len(made[i].packed.special), dtype=torch.bool) for i in (0, 2))
    assert own.any()
    assert batch.dropped.equal(torch.cat([before, own, behind]))
    assert batch.select([2, 1]).dropped.equal(torch.cat([behind, own]))
    parts = cut_rows(batch, 1, objectives[1].output, budget=1)
    assert len(parts) == 3
    assert torch.cat([part.dropped for part in parts]).equal(own)
    assert batch.to(torch.device("cpu")).dropped.equal(batch.dropped)
    assert batch.to(torch.device("meta")).dropped.device.type == "meta"
    assert fuse([(0, made[0]), (1, made[2])]).dropped is None


def test_embeddings_are_zero_there_whatever_noise_is_added(pieces):
    batch = fuse(list(enumerate(pieces[2])))
    embedded = torch.ones(batch.tokens, 32, dtype=torch.float64)
    found = batch.covered(embedded)
    for place, dropped in enumerate(batch.dropped.tolist()):
        wanted = torch.zeros(32) if dropped else 1 + batch.noise[place].double()
        assert found[place].equal(wanted.double())
    assert embedded.equal(torch.ones_like(embedded))


def test_no_gradient_reaches_what_is_dropped(pieces):
    backbone, _, made = pieces
    batch = fuse([(0, made[1])])
    ids = torch.where(batch.dropped, 96, batch.inputs["input_ids"].clamp(max=95))
    states = backbone.encode(attrs.evolve(batch, inputs={"input_ids": ids})).states
    (gradient,) = torch.autograd.grad(states.square().sum(), backbone.body.words.weight)
    assert gradient[96].abs().max() == 0
    assert gradient.abs().max() > 0
    other = attrs.evolve(batch, inputs={"input_ids": ids.where(~batch.dropped, 50)})
    assert backbone.encode(other).states.equal(states)


def test_engines_agree():
    step = make_step((2, 2, 2, 2), ids=IDS, cutoff={"rate": 0.4})
    slow = looped(step.model, step.batch, step.coefficients, step.dev_gradient)
    step.gradients()
    fast = fused(step.model, step.batch, step.coefficients, step.dev_gradient)
    assert disagreement(fast, slow) < 1e-10


def test_a_dropped_position_does_not_show_its_token(pieces):
    _, objectives, made = pieces
    assert not visible_targets(objectives[1].output, made[1]).any()
    bare = attrs.evolve(made[1], packed=attrs.evolve(made[1].packed, dropped=None))
    assert visible_targets(objectives[1].output, bare).all()


def test_images_too():
    encoder = image_encoder()
    plain = plain_batch(rows_of(encoder, small_task())[:2])
    dropped = torch.zeros(plain.tokens, dtype=torch.bool)
    dropped[5:9] = True
    found = encoder.encode(attrs.evolve(plain, dropped=dropped)).states
    pixels = encoder.body.pixels(plain.inputs["patches"].double().clamp(min=0.0)).detach()
    opposite = torch.where(dropped[:, None], -pixels, 0.0)
    expected = encoder.encode(attrs.evolve(plain, noise=opposite)).states
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(found, encoder.encode(plain).states)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: torch.zeros(n), "expected dropped .* of booleans, found torch.float32"),
        (lambda n: torch.zeros(n, 2, dtype=torch.bool), "of booleans, found torch.bool"),
        (lambda n: torch.zeros(n + 1, dtype=torch.bool), "positions in dropped"),
    ],
)
def test_a_transform_that_says_it_otherwise_breaks_its_contract(make, message):
    packed = pack(tiny_backbone().rows([{"text": "1 2 3"}], [None]))
    check_packed(packed, 1)
    with pytest.raises(BrokenContract, match=message):
        check_packed(attrs.evolve(packed, dropped=make(len(packed.special))), 1)
