"""Contract of the third stage: representations, checked in matrices and through a real encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from aang_core.batch.checks import check_rule
from aang_core.batch.packing import row_rules
from aang_core.batch.protocols import Binding, BoundRepresentation
from aang_core.batch.stream import FusedBatch, RowRule
from aang_core.check.contracts.expect import expect, expect_same, made, quiet, seeded, well_formed
from aang_core.check.contracts.tiny_data import tiny_packed, tiny_source
from aang_core.check.contracts.tiny_encoder import LAYERS, tiny_backbone
from aang_core.registry.records import Primitive

_LENGTHS = (1, 2, 7, 16)


def check_representation(record: Primitive, binding: Binding) -> None:
    """Every position sees itself; the rule is repeatable; a real encoder keeps to it.

    The last is shown by perturbation: one input changes, and only positions that may see it move.

    :raises AssertionError: where a contract is broken.
    """
    rule: BoundRepresentation = made(record, binding)
    with well_formed(record):
        check_rule(rule.tag, None, 0)
    for length in _LENGTHS:
        if rule.tag == "matrix":
            _check_matrix(record, rule, length)
        if rule.tag == "order":
            _check_order(record, rule, length)
    _check_perturbation(record, rule)


def _check_matrix(record: Primitive, rule: BoundRepresentation, length: int) -> None:
    with quiet(record, "allowed"):
        matrix, again = rule.allowed(length, seeded(0)), rule.allowed(length, seeded(0))
    with well_formed(record):
        check_rule(rule.tag, matrix, length)
    blind = (~matrix.diagonal()).nonzero().flatten().tolist()
    expect(not blind, record, f"expected every position to see itself, found {blind} that do not")
    expect_same(record, matrix, again, "expected the same matrix for the same generator")


def _check_order(record: Primitive, rule: BoundRepresentation, length: int) -> None:
    with quiet(record, "order"):
        ranks, again = rule.order(length, seeded(0)), rule.order(length, seeded(0))
    with well_formed(record):
        check_rule(rule.tag, ranks, length)
    permutation = ranks.sort().values.equal(torch.arange(length))
    expect(permutation, record, f"expected a permutation of {length}, found {ranks.tolist()}")
    expect_same(record, ranks, again, "expected the same order for the same generator")


def _check_perturbation(record: Primitive, rule: BoundRepresentation) -> None:
    backbone = tiny_backbone(torch.float64)
    packed = tiny_packed(tiny_source(backbone=backbone), rows=3)
    with quiet(record, "its rule"):
        _, rules = row_rules(rule, packed, seeded(0))
    reach = _reach(rules, packed.lengths.tolist())
    batch = FusedBatch(inputs=packed.inputs, offsets=packed.offsets, rules=rules)
    with torch.no_grad():
        before = backbone.encode(batch).states
        for j in range(len(packed.special)):
            ids = packed.inputs["input_ids"].clone()
            ids[j] = (ids[j] + 1) % backbone.vocab_size
            changed = FusedBatch(inputs={"input_ids": ids}, offsets=packed.offsets, rules=rules)
            moved = (backbone.encode(changed).states != before).any(-1)
            wrong = (moved & ~reach[:, j]).nonzero().flatten().tolist()
            expect(
                not wrong,
                record,
                f"expected input {j} to move only positions that may see it, found {wrong} moved",
            )
            expect(bool(moved[j]), record, f"expected input {j} to move its own state")


def _reach(rules: tuple[RowRule, ...], lengths: list[int]) -> Tensor:
    """[N, N] bool: what each position sees through all layers."""
    blocks = [rule.matrix(n).double() for rule, n in zip(rules, lengths, strict=True)]
    step: Tensor = torch.block_diag(*blocks)
    paths: Tensor = torch.linalg.matrix_power(step, LAYERS)
    return paths > 0
