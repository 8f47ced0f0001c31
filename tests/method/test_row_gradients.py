"""Gradients of embeddings by rows against dense ones, in float64."""

import attrs
import pytest
import torch
from _steps import MIXED, make_step
from torch import nn

from aang_core.method.gradient.metagrad import fused, looped, plain
from aang_core.method.gradient.row_gradients import (
    added,
    by_rows,
    coalesced,
    inner,
    of_rows,
    rows_at,
)

WAYS = {
    "plain": lambda step: plain(step.model, step.batch, step.coefficients),
    "fused": lambda step: fused(step.model, step.batch, step.coefficients, step.dev_gradient),
    "looped": lambda step: looped(step.model, step.batch, step.coefficients, step.dev_gradient),
}


def gradients(step, way):
    """By name, and the products."""
    result = WAYS[way](step)
    found = step.gradients()
    aligned = None if way == "plain" else (result.alignment.dots, result.alignment.squared_norms)
    return found, aligned


@pytest.mark.parametrize("decoder", ["tied", "untied"])
@pytest.mark.parametrize("way", WAYS)
def test_a_step_by_rows_has_the_gradients_of_a_dense_one(way, decoder):
    decoders = {"denoise": {"decoder": decoder}, "next_token": {"decoder": decoder}}
    step = make_step((4, 3, 2, 1, 2, 3), ids=MIXED[:5], **decoders)
    expected, products = gradients(step, way)
    with by_rows(step.model.backbone.body):
        found, ours = gradients(step, way)
    assert found.keys() == expected.keys()
    sparse = [name for name, gradient in found.items() if gradient.is_sparse]
    assert sparse
    assert any("words" in name for name in sparse) == (decoder == "untied")
    for name, gradient in found.items():
        torch.testing.assert_close(gradient.to_dense(), expected[name], rtol=1e-12, atol=1e-14)
    if products is not None:
        torch.testing.assert_close(ours, products, rtol=1e-12, atol=1e-14)


def test_a_dev_gradient_by_rows_has_the_products_of_a_dense_one():
    step = make_step()
    assert any(value.is_sparse for value in step.dev_gradient.values())
    dense = {name: value.to_dense() for name, value in step.dev_gradient.items()}
    whole = attrs.evolve(step, dev_gradient=dense)
    for way in ("fused", "looped"):
        _, expected = gradients(whole, way)
        _, found = gradients(step, way)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_tables_on_the_cpu_go_by_rows_inside_the_block():
    body = nn.ModuleList([nn.Embedding(5, 2), nn.Embedding(5, 2, scale_grad_by_freq=True)])
    elsewhere = nn.Embedding(5, 2, device="meta")
    own = nn.Embedding(5, 2, sparse=True)
    changing = nn.Embedding(5, 2, max_norm=1.0)
    body.extend([elsewhere, own, changing, nn.Linear(2, 2)])
    with by_rows(body):
        assert [table.sparse for table in body[:5]] == [True, False, False, True, False]
    assert [table.sparse for table in body[:4]] == [False, False, False, True]


@pytest.mark.parametrize("ids", [[], [4, 1, 4]])
def test_rows_and_products_are_those_of_the_dense_gradient(ids):
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(len(ids), 3, generator=draw, dtype=torch.float64)
    other = torch.randn(6, 3, generator=draw, dtype=torch.float64)
    one = coalesced(of_rows(torch.tensor(ids, dtype=torch.long), rows, 6))
    two = other.clone()
    two[[0, 1]] = 0
    two = coalesced(two.to_sparse(1))
    wanted = torch.tensor([5, 4, 4, 0, 1])
    assert torch.equal(rows_at(one, wanted), one.to_dense()[wanted])
    assert torch.equal(rows_at(other, wanted), other[wanted])
    for left in (one, two, other):
        for right in (one, two, other):
            expected = (left.to_dense() * right.to_dense()).sum()
            torch.testing.assert_close(inner(left, right), expected, rtol=1e-12, atol=1e-14)
            both = added(left, right).to_dense()
            torch.testing.assert_close(both, left.to_dense() + right.to_dense())
