"""Packed attention against a dense softmax, one row at a time."""

from __future__ import annotations

import pytest
import torch
from aang_text.encoder.attention import make_plan, packed_attention
from hypothesis import given, settings
from hypothesis import strategies as st

from aang_core.batch.stream import RowRule
from aang_core.errors import ModelError

CPU = torch.device("cpu")


def dense(query, key, value, lengths, rules, scaling, window):
    """[1, N, A, D] by the definition."""
    pieces, start = [], 0
    for length, rule in zip(lengths, rules, strict=True):
        place = torch.arange(length)
        ahead = place[None, :] - place[:, None]
        allowed = {
            "full": ahead <= length,
            "causal": ahead <= 0,
            "anticausal": ahead >= 0,
            "matrix": rule.allowed,
        }[rule.tag]
        if window is not None:
            allowed = allowed & (ahead.abs() <= window - 1)
        q, k, v = (each[0, :, start : start + length] for each in (query, key, value))
        scores = (q @ k.transpose(1, 2) * scaling).masked_fill(~allowed, float("-inf"))
        pieces.append((scores.softmax(-1) @ v).transpose(0, 1))
        start += length
    return torch.cat(pieces)[None]


@st.composite
def streams(draw):
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=7))
    tags = draw(
        st.lists(
            st.sampled_from(["full", "causal", "anticausal", "matrix"]),
            min_size=len(lengths),
            max_size=len(lengths),
        )
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    rules = []
    for length, tag in zip(lengths, tags, strict=True):
        allowed = torch.rand(length, length, generator=generator) < 0.6
        allowed |= torch.eye(length, dtype=torch.bool)
        rules.append(RowRule(tag, allowed if tag == "matrix" else None))
    return lengths, rules, draw(st.sampled_from([None, 1, 4, 60])), generator


@settings(max_examples=40, deadline=None)
@given(streams())
def test_values_and_gradients_equal_dense_attention(stream):
    lengths, rules, window, generator = stream
    shape = (1, 2, sum(lengths), 8)
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in "qkv"
    ]
    plan = make_plan(lengths, rules, CPU)
    found, _ = packed_attention(
        torch.nn.Identity(), *inputs, None, scaling=0.3, sliding_window=window, aang_plan=plan
    )
    wanted = dense(*inputs, lengths, rules, 0.3, window)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    weight = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for got, want in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((wanted * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60))
def test_padding_within_groups_is_bounded(lengths):
    plan = make_plan(lengths, [RowRule()] * len(lengths), CPU)
    for group in plan.groups:
        assert group.longest <= 1.25 * min(group.lengths) + 4
    assert torch.equal(plan.gather[plan.scatter], torch.arange(sum(lengths)))


def test_masks_are_made_once_for_all_layers():
    plan = make_plan([3, 5], [RowRule("causal"), RowRule()], CPU)
    assert plan.mask(0, None, torch.float32) is plan.mask(0, None, torch.float32)
    assert plan.mask(0, 2, torch.float32) is not plan.mask(0, None, torch.float32)


def test_equal_unmasked_rows_need_no_mask():
    plan = make_plan([4, 4], [RowRule()] * 2, CPU)
    assert plan.mask(0, None, torch.float32) is None


def test_what_cannot_be_packed_is_refused():
    states = torch.zeros(1, 1, 2, 4)
    plan = make_plan([2], [RowRule()], CPU)
    with pytest.raises(ModelError, match="layout"):
        packed_attention(torch.nn.Identity(), states, states, states, None)
    with pytest.raises(ModelError, match="its own bias"):
        packed_attention(torch.nn.Identity(), states, states, states, states, aang_plan=plan)
    with pytest.raises(ModelError, match="unknown attention rules"):
        make_plan([2], [RowRule("sideways")], CPU)
