"""Contracts of the first two stages: data sources and transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from aang_core.contracts.data import source_of, tiny_packed
from aang_core.contracts.tools import expect, expect_same, frozen_copy, made, quiet, seeded
from aang_core.primitives import DataSource, Primitive
from aang_core.protocols import Binding, BoundSource, BoundTransform
from aang_core.rows import SINGLE, Packed, Row


def check_source(record: Primitive, binding: Binding) -> None:
    """Rows are well formed, as many as asked for, and the same for the same generator.

    :raises AssertionError: where a contract is broken.
    """
    source = made(record, binding)
    expect(isinstance(source, BoundSource), record, f"expected a BoundSource, found {source!r}")
    allowed = cast(DataSource, record).may_provide
    extra = source.provides - allowed
    expect(not extra, record, f"expected only what may_provide lists, found {sorted(extra)}")
    with quiet(record, "rows and draw"):
        everything = list(source.rows())
        drawn = {n: source.draw(SINGLE, n, seeded(3)) for n in (1, 5, 2 * len(source))}
        again = source.draw(SINGLE, 5, seeded(3))
    expect(
        len(everything) == len(source),
        record,
        f"expected rows() to give each of {len(source)} texts once, found {len(everything)} rows",
    )
    for count, rows in drawn.items():
        expect(len(rows) == count, record, f"asked for {count} rows, found {len(rows)}")
        for row in rows:
            _check_row(record, row)
    expect_same(record, drawn[5], again, "expected the same rows for the same generator")


def _check_row(record: Primitive, row: Row) -> None:
    expect(len(row) > 0, record, f"expected rows with positions, found none in {row.origin}")
    expect(row.special.dtype == torch.bool, record, "expected `special` to be bool")
    fields = {**row.inputs, **{f"mark {name}": mark for name, mark in row.marks.items()}}
    if row.proposals is not None:
        fields["proposals"] = row.proposals
    for name, value in fields.items():
        expect(
            len(value) == len(row),
            record,
            f"expected {len(row)} positions in {name!r}, found {len(value)} in {row.origin}",
        )


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
        _check_shapes(record, result, len(packed.lengths), binding.backbone.embedding_size)
        _check_selection(record, result)
        if "transform:aligned" in record.capabilities:
            _check_aligned(record, packed, result)


def _check_shapes(record: Primitive, packed: Packed, rows: int, width: int) -> None:
    count = len(packed.special)
    offsets = packed.offsets
    sound = len(offsets) == rows + 1 and int(offsets[0]) == 0 and int(offsets[-1]) == count
    expect(
        sound and bool((packed.lengths > 0).all()),
        record,
        f"expected offsets of {rows} rows, none empty, over {count} positions, "
        f"found {offsets.tolist()}",
    )
    fields: Mapping[str, Tensor | None] = {
        **{f"inputs[{name}]": value for name, value in packed.inputs.items()},
        **{f"original[{name}]": value for name, value in packed.original.items()},
        **{f"marks[{name}]": value for name, value in packed.marks.items()},
        "selected": packed.selected,
        "proposals": packed.proposals,
        "noise": packed.noise,
    }
    for name, value in fields.items():
        found = count if value is None else len(value)
        expect(found == count, record, f"expected {count} positions in {name}, found {found}")
    if packed.noise is not None:
        found = packed.noise.shape[1]
        expect(found == width, record, f"expected noise [{count}, {width}], found [.., {found}]")
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
