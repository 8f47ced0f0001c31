"""Contract of the second stage: transforms."""

from __future__ import annotations

import torch

from aang_core.batch.checks import check_packed
from aang_core.batch.protocols import Binding, BoundTransform
from aang_core.batch.rows import Packed
from aang_core.check.contracts.expect import expect, expect_same, made, quiet, seeded, well_formed
from aang_core.check.contracts.tiny_data import source_of, tiny_packed
from aang_core.check.purity import frozen_copy
from aang_core.registry.records import Primitive


def check_transform(record: Primitive, binding: Binding) -> None:
    """A transform changes nothing in place, is repeatable, and keeps what it declares.

    :param binding: with a data source of one's own where the encoder reads no texts, as `tiny_source` has them.
    :raises AssertionError: where a contract is broken.
    """
    if binding.backbone is None:
        raise ValueError("a transform is checked on an encoder; the binding has none")
    transform: BoundTransform = made(record, binding)
    packed = tiny_packed(source_of(binding))
    before = frozen_copy(packed)
    with quiet(record, "apply"):
        after = transform.apply(packed, seeded(0))
        again = transform.apply(packed, seeded(0))
        others = [transform.apply(packed, seeded(seed)) for seed in range(1, 4)]
    expect_same(record, packed, before, "expected the input to be left as it was")
    expect_same(record, after, again, "expected the same result for the same generator")
    for result in (after, *others):
        with well_formed(record):
            check_packed(result, len(packed.lengths))
        _check_noise(record, result, binding.backbone.embedding_size)
        _check_selection(record, result)
        if "transform:aligned" in record.capabilities:
            _check_aligned(record, packed, result)


def _check_noise(record: Primitive, packed: Packed, width: int) -> None:
    if packed.noise is None:
        return
    found = packed.noise.shape[1]
    expect(found == width, record, f"expected noise [N, {width}], found [.., {found}]")
    expect(bool(packed.noise.isfinite().all()), record, "expected finite noise")


def _check_selection(record: Primitive, packed: Packed) -> None:
    special = int((packed.selected & packed.special).sum())
    expect(not special, record, f"expected no special position selected, found {special}")
    rows = len(packed.lengths)
    chosen = torch.bincount(packed.row_of[packed.selected], minlength=rows) > 0
    able = torch.bincount(packed.row_of[~packed.special], minlength=rows) > 0
    if "transform:selection" in record.capabilities:
        missed = (able & ~chosen).nonzero().flatten().tolist()
        expect(not missed, record, f"expected a selection in every row, found none in {missed}")
    else:
        expect(
            not bool(chosen.any()),
            record,
            "expected nothing selected, since the record drops transform:selection",
        )


def _check_aligned(record: Primitive, before: Packed, after: Packed) -> None:
    text = "expected the positions of the text, since the record keeps transform:aligned"
    for name in ("offsets", "special", "original", "marks"):
        expect_same(record, getattr(before, name), getattr(after, name), f"{text} ({name})")
    for name, value in before.inputs.items():
        kept = value[before.special].equal(after.inputs[name][before.special])
        expect(kept, record, f"expected special positions unchanged, found others in {name!r}")
