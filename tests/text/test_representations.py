"""Representations: what each position may attend to."""

import pytest
import torch
from aang_text import representations

from aang_core.batch.protocols import Binding
from aang_core.errors import ConfigError
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

BINDING = Binding(task=tiny_task(), backbone=tiny_backbone(), options={})


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def factorized(**options):
    return representations.RandomFactorized(
        Binding(task=BINDING.task, backbone=BINDING.backbone, options=options)
    )


@pytest.mark.parametrize(
    ("name", "tag", "sees"),
    [
        ("bidirectional", "full", lambda i, j: True),
        ("left_to_right", "causal", lambda i, j: j <= i),
        ("right_to_left", "anticausal", lambda i, j: j >= i),
    ],
)
def test_directed_rules(name, tag, sees):
    rule = getattr(representations, name)(BINDING)
    expected = torch.tensor([[sees(i, j) for j in range(5)] for i in range(5)])
    assert rule.tag == tag
    assert torch.equal(rule.allowed(5, gen()), expected)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("keep", [0.0, 0.6, 1.0])
def test_factorized_keeps_pairs_with_its_probability(keep, shared):
    matrix = factorized(keep=keep, shared=shared).allowed(300, gen())
    off = matrix[~torch.eye(300, dtype=torch.bool)].double().mean()
    assert matrix.diagonal().all()
    assert abs(float(off) - keep) < 0.01


def test_rows_have_matrices_of_their_own():
    rule, generator = factorized(), gen()
    assert not torch.equal(rule.allowed(20, generator), rule.allowed(20, generator))


def test_shared_rows_see_corners_of_one_matrix_and_steps_do_not():
    rule, generator = factorized(shared=True), gen()
    long = rule.allowed(40, generator)
    for length in (1, 3, 17, 40):
        assert torch.equal(rule.allowed(length, generator), long[:length, :length])
    torch.rand(1, generator=generator)
    assert not torch.equal(rule.allowed(40, generator), long)


def test_permuted_sees_exactly_what_precedes_it():
    rule = representations.permuted(BINDING)
    rank, allowed = rule.order(9, gen(4)), rule.allowed(9, gen(4))
    for i in range(9):
        for j in range(9):
            assert bool(allowed[i, j]) == (rank[j] <= rank[i])


def test_orders_are_uniform():
    generator = gen()
    rule = representations.permuted(BINDING)
    first = torch.stack([rule.order(4, generator) for _ in range(4000)]).double().mean(0)
    assert (first - 1.5).abs().max() < 0.08


@pytest.mark.parametrize("keep", [-0.1, 1.1, "most", True])
def test_an_impossible_probability_is_refused(keep):
    with pytest.raises(ConfigError, match="keep: expected a probability"):
        factorized(keep=keep)


def test_declared_capabilities_follow_from_the_rules():
    registry = load_registry()
    for name in registry.at_stage("representation"):
        record = registry.primitive(name)
        if record.factory.startswith("aang_text"):
            ordered = {"left-to-right", "right-to-left", "permuted"}
            kind = "order" if name in ordered else "whole-sequence"
            assert record.provides == {f"representation:{kind}"}
            assert ("backbone:row-attention" in record.requires) == (name != "bidirectional")
