"""Transforms: counts, shares, words and spans, against slow readings of their definitions."""

import attrs
import pytest
import torch
from aang_text.transforms import (
    BertOp,
    Cutoff,
    Delete,
    Mask,
    NoiseEmbeddings,
    Replace,
    Selecting,
    SpanMask,
    Swap,
)
from hypothesis import given
from hypothesis import strategies as st

from aang_core.batch.packing import pack
from aang_core.batch.positions import _geometric, select, select_spans, units
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin, Row
from aang_core.errors import ConfigError, ModelError
from aang_core.testing import tiny_backbone, tiny_task

BACKBONE = tiny_backbone()
TASK = tiny_task()


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def binding(**options):
    return Binding(task=TASK, backbone=BACKBONE, options=options)


def packed_of(*lengths, word_length=1):
    """Rows of [CLS] n tokens [SEP], in words of `word_length` tokens."""
    rows = []
    for row, n in enumerate(lengths):
        word = torch.cat([torch.tensor([-1]), torch.arange(n) // word_length, torch.tensor([-1])])
        ids = torch.cat([torch.tensor([1]), torch.arange(n) % 90 + 4, torch.tensor([2])])
        marks = {"word": word, "place": torch.arange(n + 2)}
        rows.append(Row({"input_ids": ids}, word < 0, Origin("made", row, 0), marks))
    return pack(rows)


def by_row(packed, value):
    return torch.tensor_split(value, packed.offsets[1:-1])


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(0, 99))
def test_swap_takes_tokens_of_other_rows(lengths, seed):
    """Each row has ids of its own, so that a token says where it comes from."""
    packed = packed_of(*lengths)
    ids = torch.where(packed.special, packed.inputs["input_ids"], 10 + packed.row_of)
    packed = attrs.evolve(packed, inputs={"input_ids": ids})
    after = Swap(binding(rate=0.5)).apply(packed, gen(seed))
    for i, new in enumerate(after.inputs["input_ids"].tolist()):
        row = int(packed.row_of[i])
        others = {10 + r for r, n in enumerate(lengths) if n and r != row}
        expected = others if after.selected[i] and others else {int(ids[i])}
        assert new in expected, (i, new, expected)


def test_swap_is_uniform_over_the_other_rows_tokens():
    packed = packed_of(4, 2, 6)
    ids = torch.where(packed.special, 1, 10 + torch.arange(len(packed.special)))
    packed = attrs.evolve(packed, inputs={"input_ids": ids})
    middle = (packed.row_of == 1) & ~packed.special
    generator, swap = gen(), Swap(binding(rate=1.0))
    new = torch.cat(
        [swap.apply(packed, generator).inputs["input_ids"][middle] for _ in range(2000)]
    )
    others = ids[(packed.row_of != 1) & ~packed.special]
    shares = (new[:, None] == others).double().mean(0)
    assert (shares - 0.1).abs().max() < 0.02  # 4 standard errors
    assert float(shares.sum()) == pytest.approx(1.0)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.floats(0.01, 1), st.integers(0, 99))
def test_each_row_selects_its_exact_share(lengths, rate, seed):
    packed = packed_of(*lengths)
    chosen = select(packed, rate, False, gen(seed))
    for n, row in zip(lengths, by_row(packed, chosen), strict=True):
        share = torch.tensor(float(n)).mul(rate).round().long()
        assert int(row.sum()) == min(n, max(1, int(share)))
    assert not (chosen & packed.special).any()


def test_selection_is_uniform():
    packed = packed_of(10)
    generator = gen()
    counts = sum(select(packed, 0.3, False, generator).double() for _ in range(4000)) / 4000
    assert (counts[1:-1] - 0.3).abs().max() < 0.03  # 4 standard errors


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 99))
def test_whole_words_are_selected_or_left_whole(lengths, word_length, seed):
    packed = packed_of(*lengths, word_length=word_length)
    chosen = select(packed, 0.4, True, gen(seed))
    for row in range(len(lengths)):
        here = (packed.row_of == row) & ~packed.special
        words = packed.marks["word"]
        states = {int(w): set(chosen[here & (words == w)].tolist()) for w in words[here].unique()}
        assert all(len(state) == 1 for state in states.values())
        found = sum(True in state for state in states.values())
        share = max(1, int(torch.tensor(len(states) * 0.4).round()))
        assert found == share


def test_positions_outside_words_are_units_of_their_own():
    packed = packed_of(6)
    blank = attrs.evolve(packed, marks={"word": torch.full_like(packed.marks["word"], -1)})
    assert len(units(blank, True).row_of) == 6


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=5),
    st.integers(1, 3),
    st.floats(0.05, 1),
    st.integers(0, 99),
)
def test_spans_spend_each_budget_in_contiguous_runs(lengths, word_length, rate, seed):
    packed = packed_of(*lengths, word_length=word_length)
    chosen, spans = select_spans(packed, rate, True, 0.2, 10, gen(seed))
    assert torch.equal(chosen, spans >= 0)
    for n, row, span in zip(lengths, by_row(packed, chosen), by_row(packed, spans), strict=True):
        words = packed_of(n, word_length=word_length).marks["word"]
        count = -(-n // word_length)
        share = min(count, max(1, int(torch.tensor(count * rate).round())))
        assert len(words[row].unique()) == share
        for number in span[span >= 0].unique():
            places = (span == number).nonzero().flatten()
            assert int(places[-1] - places[0]) + 1 == len(places)
            assert len(words[places].unique()) <= 10


def test_spans_do_not_cross_special_positions():
    packed = packed_of(9)
    packed = attrs.evolve(packed, special=packed.special | (torch.arange(11) % 3 == 0))
    _, spans = select_spans(packed, 1.0, False, 0.01, 10, gen())
    runs = {tuple((spans == s).nonzero().flatten().tolist()) for s in spans.unique() if s >= 0}
    assert all(max(run) - min(run) < 2 for run in runs)


def test_span_lengths_are_geometric_and_cut():
    lengths = _geometric(200_000, 0.2, 10, gen()).double()
    expected = torch.tensor([0.2 * 0.8**k for k in range(9)] + [0.8**9], dtype=torch.float64)
    found = torch.bincount(lengths.long(), minlength=11)[1:] / len(lengths)
    assert (found - expected).abs().max() < 0.005
    assert abs(float(lengths.mean()) - 4.46) < 0.05


def test_no_op_only_selects():
    packed = packed_of(20, 3)
    after = Selecting(binding()).apply(packed, gen())
    assert torch.equal(after.inputs["input_ids"], packed.inputs["input_ids"])
    assert after.selected.sum() == 4


def test_mask_masks_the_selection_alone():
    packed = packed_of(40, 7)
    after = Mask(binding(rate=0.5)).apply(packed, gen())
    ids, before = after.inputs["input_ids"], packed.inputs["input_ids"]
    assert (ids[after.selected] == BACKBONE.mask_id).all()
    assert torch.equal(ids[~after.selected], before[~after.selected])


def test_replace_uses_proposals_where_there_are_any():
    packed = packed_of(400)
    proposals = torch.where(torch.arange(402) % 2 == 0, 50, -1)
    after = Replace(binding(rate=1.0)).apply(attrs.evolve(packed, proposals=proposals), gen())
    ids = after.inputs["input_ids"]
    assert (ids[after.selected & (proposals >= 0)] == 50).all()
    others = ids[after.selected & (proposals < 0)]
    assert len(others.unique()) > 60
    assert others.min() >= 4


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.2, 0.5, 0.3)])
def test_bert_op_keeps_its_proportions(shares):
    packed = packed_of(20_000)
    after = BertOp(binding(rate=1.0, proportions=list(shares))).apply(packed, gen())
    ids, before = after.inputs["input_ids"][1:-1], packed.inputs["input_ids"][1:-1]
    masked = (ids == BACKBONE.mask_id).double().mean()
    kept = (ids == before).double().mean()
    by_chance = shares[1] / len(BACKBONE.replaceable)
    assert abs(masked - shares[0]) < 0.015
    assert abs(kept - shares[2] - by_chance) < 0.015


def test_a_span_has_one_fate():
    packed = packed_of(3000)
    after = SpanMask(binding(rate=0.3, proportions=[0.5, 0, 0.5])).apply(packed, gen())
    _, spans = select_spans(packed, 0.3, True, 0.2, 10, gen())
    masked = after.inputs["input_ids"] == BACKBONE.mask_id
    fates = {len(masked[spans == s].unique()) for s in spans.unique() if s >= 0}
    assert fates == {1}
    assert 0.4 < masked[after.selected].double().mean() < 0.6


@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_noise_has_its_relative_strength_on_the_selection_alone(kind):
    packed = packed_of(2000)
    after = NoiseEmbeddings(binding(noise=kind, std=0.5, rate=0.5)).apply(packed, gen())
    noise = after.noise
    assert noise[~after.selected].abs().max() == 0
    signal = BACKBONE.body.words.weight.detach().square().mean().sqrt()
    assert abs(noise[after.selected].std() / signal - 0.5) < 0.01
    if kind == "uniform":
        assert noise.abs().max() <= 0.5 * 3**0.5 * signal
    assert torch.equal(after.inputs["input_ids"], packed.inputs["input_ids"])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 99), st.integers(1, 3))
def test_cutoff_drops_one_span_of_each_row(lengths, seed, word_length):
    """A slow reading: the only runs of `size` words that there are, and the row has one of them."""
    packed = packed_of(*lengths, word_length=word_length)
    after = Cutoff(binding(rate=0.3, whole_words=word_length > 1)).apply(packed, gen(seed))
    assert torch.equal(after.selected, after.dropped)
    assert torch.equal(after.inputs["input_ids"], packed.inputs["input_ids"])
    for n, dropped in zip(lengths, by_row(packed, after.dropped), strict=True):
        words = -(-n // word_length)
        size = min(words, max(1, round(words * 0.3)))
        spans = [
            [start <= (place - 1) // word_length < start + size for place in range(1, n + 1)]
            for start in range(words - size + 1)
        ]
        assert dropped.tolist() in [[False, *span, False] for span in spans or [[]]]


def test_a_spans_place_is_uniform_and_single_tokens_are_those_of_select():
    packed = packed_of(6, 3)
    cutoff, generator = Cutoff(binding(rate=0.5)), gen()
    drawn = torch.stack([cutoff.apply(packed, generator).dropped for _ in range(4000)])
    shares = drawn.double().mean(0)
    # of four places for three tokens out of six, one to three cover a token
    wanted = torch.tensor([0, 1 / 4, 2 / 4, 3 / 4, 3 / 4, 2 / 4, 1 / 4, 0])
    assert (shares[:8] - wanted).abs().max() < 0.03
    # 3 · 0.5 is rounded to the even 2: two places, of which both cover the middle
    assert (shares[8:] - torch.tensor([0, 0.5, 1, 0.5, 0])).abs().max() < 0.03
    after = Cutoff(binding(rate=0.5, cut="token")).apply(packed, gen(3))
    assert torch.equal(after.dropped, select(packed, 0.5, False, gen(3)))


def test_what_is_deleted_after_a_cutoff_is_no_longer_dropped():
    packed = Cutoff(binding(rate=0.5)).apply(packed_of(8, 5), gen())
    after = Delete(binding(rate=0.5)).apply(packed, gen(1))
    places = [
        torch.where(packed.row_of == row)[0][after.marks["place"][after.row_of == row]]
        for row in (0, 1)
    ]
    assert torch.equal(after.dropped, packed.dropped[torch.cat(places)])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 99))
def test_delete_keeps_order_facts_and_something_of_every_row(lengths, seed):
    packed = packed_of(*lengths)
    labels = [torch.arange(n + 2) if i % 2 else i for i, n in enumerate(lengths)]
    after = Delete(binding(rate=0.5)).apply(attrs.evolve(packed, labels=labels), gen(seed))
    assert not after.selected.any()
    for i, n in enumerate(lengths):
        here = after.row_of == i
        dropped = min(max(1, int(torch.tensor(n * 0.5).round())), n - 1) if n else 0
        assert int(here.sum()) == n + 2 - dropped
        places = after.marks["place"][here]
        assert (places[1:] > places[:-1]).all()
        original = packed.inputs["input_ids"][packed.row_of == i]
        assert torch.equal(after.inputs["input_ids"][here], original[places])
        if i % 2:
            assert torch.equal(after.labels[i], places)


@pytest.mark.parametrize(
    ("transform", "options", "message"),
    [
        (Mask, {"rate": 0}, r"\[primitives.mask\] rate: .*found 0"),
        (Mask, {"rate": "much"}, "found 'much'"),
        (BertOp, {"proportions": [0.8, 0.1]}, "three shares"),
        (BertOp, {"proportions": [0.8, 0.1, 0.2]}, "sum to 1"),
        (SpanMask, {"p": 1.0}, "p between 0 and 1"),
        (NoiseEmbeddings, {"noise": "pink"}, "gaussian, uniform"),
        (NoiseEmbeddings, {"std": -1}, "std over 0"),
        (Cutoff, {"cut": "word"}, r"\[primitives.cutoff\] cut: expected one of span, token"),
    ],
)
def test_impossible_options_are_refused(transform, options, message):
    with pytest.raises(ConfigError, match=message):
        transform(binding(**options))


def test_an_encoder_without_a_mask_token_is_refused():
    backbone = tiny_backbone()
    backbone.mask_id = None
    with pytest.raises(ModelError, match="mask: expected an encoder that has mask_id"):
        Mask(Binding(task=TASK, backbone=backbone, options={}))
