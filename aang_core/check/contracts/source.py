"""Contract of the first stage: data sources."""

from __future__ import annotations

from typing import cast

import torch

from aang_core.batch.checks import check_rows
from aang_core.batch.protocols import Binding, BoundSource
from aang_core.batch.rows import SINGLE
from aang_core.check.contracts.expect import expect, expect_same, made, quiet, seeded, well_formed
from aang_core.registry.records import DataSource, Primitive


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
    if hasattr(source, "refreshed"):
        with quiet(record, "memory and remember"):
            source.remember({name: value.clone() for name, value in source.memory().items()})
            after = source.draw(SINGLE, 5, seeded(3))
        expect_same(record, again, after, "expected a source to draw the same by the same memory")
    if hasattr(source, "examples"):
        origins = [origin for origin, _ in source.examples()]
        known = set(origins) >= {row.origin for row in everything} and len(set(origins)) == len(
            origins
        )
        expect(known, record, "expected examples() to give each row's example, with its own origin")
    for count, rows in drawn.items():
        with well_formed(record):
            check_rows(rows, count)
        for row in rows:
            expect(row.special.dtype == torch.bool, record, "expected `special` to be bool")
            fits = row.proposals is None or len(row.proposals) == len(row)
            expect(fits, record, f"expected {len(row)} proposals in {row.origin}")
    expect_same(record, drawn[5], again, "expected the same rows for the same generator")
