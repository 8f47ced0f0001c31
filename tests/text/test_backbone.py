"""Every family's packed and padded way against its own forward pass, row by row, in float64."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import attrs
import pytest
import torch
from _families import PACKED, PADDED, save_family
from aang_text.encoder import probes
from aang_text.encoder.backbone import load

from aang_core.batch.packing import pack_rows, plain_batch
from aang_core.batch.protocols import Backbone, BackboneSettings
from aang_core.batch.rows import Origin
from aang_core.batch.stream import FusedBatch, RowRule
from aang_core.errors import ModelError

TEXTS = [
    "The with statement wraps a block.",
    "Names",
    "a tuple of values is made, and the names in the body of the class are bound to it in order",
    "If a file cannot be found the module raises an error: see the list of names below.",
]
SETTINGS = BackboneSettings(device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    made = {}

    def get(kind):
        if kind not in made:
            folder = save_family(tmp_path_factory.mktemp(kind), kind)
            made[kind] = load(str(folder), SETTINGS)
        return made[kind]

    return get


def examples_of(*texts):
    return [{"text": text} for text in texts]


def rows_of(backbone, texts=TEXTS):
    return backbone.rows(examples_of(*texts), [Origin("test", 0, i) for i in range(len(texts))])


def own_states(backbone, rows):
    """The encoder's own forward pass of each row alone, on a copy with its usual attention."""
    body = deepcopy(backbone.body)
    if backbone.packed:
        body.set_attn_implementation(
            "sdpa"
        )  # ModernBERT's eager softmax is float32 whatever comes in
    states = [
        body(**{name: value[None] for name, value in row.inputs.items()}).last_hidden_state[0]
        for row in rows
    ]
    return body, torch.cat(states)


@pytest.mark.parametrize("kind", [*PACKED, *PADDED])
def test_states_and_gradients_equal_the_encoders_own(families, kind):
    backbone = families(kind)
    assert isinstance(backbone, Backbone)
    assert backbone.packed == (kind in PACKED)
    assert ("backbone:row-attention" in backbone.capabilities) == (kind in PACKED)
    rows = rows_of(backbone)
    body, expected = own_states(backbone, rows)
    states = backbone.encode(plain_batch(rows)).states
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-10)

    weight = torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).double()
    used = [name for name, p in backbone.body.named_parameters() if p.requires_grad]
    ours, theirs = dict(backbone.body.named_parameters()), dict(body.named_parameters())
    found = torch.autograd.grad((states * weight).sum(), [ours[name] for name in used])
    wanted = torch.autograd.grad((expected * weight).sum(), [theirs[name] for name in used])
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", PACKED)
def test_every_row_keeps_to_its_own_rule(families, kind):
    backbone = families(kind)
    rows = [row.inputs["input_ids"] for row in rows_of(backbone)]
    rules = probes.transitive_rules([len(row) for row in rows], torch.Generator().manual_seed(3))
    assert probes.leaks(backbone.encode, rows, rules, backbone.replaceable) == []


def test_a_rule_is_what_an_additive_mask_is_to_the_encoder_itself(families):
    backbone = families("bert")
    rows = rows_of(backbone)
    generator = torch.Generator().manual_seed(0)
    rules, alone = [], []
    body = deepcopy(backbone.body)
    body.set_attn_implementation("eager")
    for row in rows:
        allowed = torch.rand(len(row), len(row), generator=generator) < 0.5
        allowed |= torch.eye(len(row), dtype=torch.bool)
        rules.append(RowRule("matrix", allowed))
        mask = torch.zeros(allowed.shape, dtype=torch.float64)
        mask = mask.masked_fill(~allowed, torch.finfo(torch.float64).min)[None, None]
        alone.append(body(input_ids=row.inputs["input_ids"][None], attention_mask=mask)[0][0])
    batch = attrs.evolve(plain_batch(rows), rules=tuple(rules))
    states = backbone.encode(batch).states
    torch.testing.assert_close(states, torch.cat(alone), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", PADDED)
def test_rules_are_refused_where_they_would_be_ignored(families, kind):
    backbone = families(kind)
    batch = attrs.evolve(plain_batch(rows_of(backbone)), rules=(RowRule("causal"),) * len(TEXTS))
    with pytest.raises(ModelError, match="ignores attention rules"):
        backbone.encode(batch)


def test_the_perturbation_probe_sees_a_leak(families):
    """The same encoder run over the whole stream as one text is what a family that ignores the layout would do."""
    backbone = families("bert")
    body = deepcopy(backbone.body)
    body.set_attn_implementation("sdpa")

    def careless(batch):
        states = body(input_ids=batch.inputs["input_ids"][None]).last_hidden_state[0]
        return attrs.evolve(backbone.encode(batch), states=states)

    rows = [torch.arange(10, 15), torch.arange(20, 27)]
    rules = [RowRule(), RowRule("causal")]
    assert probes.leaks(careless, rows, rules, backbone.replaceable)
    assert not probes.leaks(backbone.encode, rows, rules, backbone.replaceable)
    everything = probes.leaks(careless, rows[:1], [RowRule("anticausal")], backbone.replaceable)
    assert everything == ["row 0: 3 sees 2", "row 0: 4 sees 2"]


def test_checkpointed_activations_give_the_same_gradients(tmp_path):
    folder = str(save_family(tmp_path, "modernbert"))
    grads = []
    for checkpointing in (False, True):
        backbone = load(folder, attrs.evolve(SETTINGS, checkpointing=checkpointing))
        backbone.body.train()
        rows = rows_of(backbone)
        rules = (RowRule("causal"), RowRule(), RowRule("anticausal"), RowRule())
        batch = attrs.evolve(plain_batch(rows), rules=rules)
        backbone.encode(batch).states.square().sum().backward()
        grads.append([p.grad for p in backbone.body.parameters() if p.requires_grad])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["roberta", "electra", "mpnet"])
def test_noise_is_added_to_the_input_embeddings(families, kind):
    backbone = families(kind)
    rows = rows_of(backbone)
    inputs, offsets = pack_rows(rows)
    noise = torch.randn(int(offsets[-1]), backbone.embedding_size, dtype=torch.float64)
    noisy = FusedBatch(inputs=inputs, offsets=offsets, rules=(RowRule(),) * len(rows), noise=noise)
    found = backbone.encode(noisy).states
    handle = backbone.body.get_input_embeddings().register_forward_hook(
        lambda module, args, output: output + shaped(noise, offsets, args[0], inputs["input_ids"])
    )
    try:
        expected = torch.cat([backbone.encode(plain_batch([row])).states for row in rows])
    finally:
        handle.remove()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert not torch.allclose(found, backbone.encode(plain_batch(rows)).states)


@pytest.mark.parametrize("kind", ["roberta", "electra", "mpnet"])
def test_a_dropped_position_has_a_zero_embedding_and_sends_it_no_gradient(families, kind):
    backbone = families(kind)
    rows = rows_of(backbone)
    inputs, offsets = pack_rows(rows)
    dropped = torch.rand(int(offsets[-1]), generator=torch.Generator().manual_seed(2)) < 0.4
    noise = torch.randn(len(dropped), backbone.embedding_size, dtype=torch.float64)
    ids = inputs["input_ids"].clone()
    ids[dropped] = lone = int(backbone.replaceable[-1])  # an id that no other position has
    ids[~dropped & (ids == lone)] = int(backbone.replaceable[0])
    rules = (RowRule(),) * len(rows)
    weight = backbone.body.get_input_embeddings().weight
    plain = FusedBatch(inputs={**inputs, "input_ids": ids}, offsets=offsets, rules=rules)
    for add in (None, noise):
        batch = attrs.evolve(plain, dropped=dropped, noise=add)
        found = backbone.encode(batch).states
        (gradient,) = torch.autograd.grad(found.square().sum(), weight)
        assert gradient[lone].abs().max() == 0
        assert gradient.abs().max() > 0
        # the slow reading: noise that is the very opposite of what is looked up there
        looked_up = backbone.body.get_input_embeddings()(ids).detach()
        opposite = torch.where(dropped[:, None], -looked_up, 0.0 if add is None else add)
        expected = backbone.encode(attrs.evolve(plain, noise=opposite)).states
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def shaped(noise, offsets, ids, stream):
    """The noise of the one row that is being embedded."""
    for start, stop in pairwise(offsets.tolist()):
        if torch.equal(stream[start:stop], ids[0]):
            return noise[None, start:stop]
    raise AssertionError("not a row of this batch")


def test_two_models_do_not_share_the_attention_name(tmp_path):
    backbone = load("scratch:tiny", SETTINGS)
    other = load("scratch:tiny", SETTINGS)
    other.body.set_attn_implementation("eager")
    assert backbone.body.config._attn_implementation == "aang_packed"


def test_scratch_is_the_same_for_the_same_seed():
    one, same, other = (
        load("scratch:tiny", attrs.evolve(SETTINGS, seed=seed)).body.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_pooler_is_no_part_of_the_body_and_every_parameter_is_used(families):
    for kind in ("bert", "roberta", "albert", "mpnet"):
        backbone = families(kind)
        assert not [name for name, _ in backbone.body.named_parameters() if "pooler" in name]
        states = backbone.encode(plain_batch(rows_of(backbone))).states
        free = [p for p in backbone.body.parameters() if p.requires_grad]
        torch.autograd.grad(states.sum(), free)  # fails where one is unused


def test_length_is_bounded_by_the_positions_that_the_family_can_use(families):
    assert families("roberta").max_length == 64  # two of 66 lie before and on the padding index
    assert families("bert").max_length == 66
    long = families("roberta").rows([{"text": "list " * 90}], [Origin("test", 0, 0)])
    assert families("roberta").encode(plain_batch(long)).states.shape == (64, 32)


def test_dropout_is_noticed(tmp_path, families):
    assert "backbone:dropout" in families("bert").capabilities
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    quiet = load(str(save_family(tmp_path, "bert", **still)), SETTINGS)
    assert "backbone:dropout" not in quiet.capabilities
