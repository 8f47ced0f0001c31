"""Which positions a transform selects: single ones, whole words, or spans.

A row's count is exact, ``round(rate · n)`` of its n selectable units and at least one. (BERT's
rate is an expectation.) So a short row always has a target, and losses of equal rows have equal
weight. Everything is vectorised over the N packed positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Generator, Tensor

from aang_core.batch.rows import Packed
from aang_core.errors import ConfigError


@attrs.frozen(eq=False)
class Units:
    """What is selected together: positions, or words.

    :param unit_of: [N] the unit of each position, −1 for special ones.
    :param row_of: [U] the row of each unit; rows and units are in stream order.
    """

    unit_of: Tensor
    row_of: Tensor

    def spread(self, chosen: Tensor) -> Tensor:
        """[U] → [N]: every position of the chosen units."""
        # A place for −1 at the end; it is never chosen.
        return torch.cat([chosen, chosen.new_zeros(1)])[self.unit_of]


def checked_rate(options: Mapping[str, Any], name: str) -> float:
    """The option ``rate``.

    :raises ConfigError: where it is not in (0, 1].
    """
    rate = options.get("rate", 0.15)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1:
        raise ConfigError(
            f"[primitives.{name}] rate: expected a number over 0 and at most 1, found {rate!r}"
        )
    return float(rate)


def units(packed: Packed, whole_words: bool) -> Units:
    """Every non-special position as a unit, or every word; positions outside any word stay alone."""
    free = ~packed.special
    first = free.clone()
    if whole_words and "word" in packed.marks:
        word, row = packed.marks["word"], packed.row_of
        same = (word[1:] == word[:-1]) & (word[1:] >= 0) & (row[1:] == row[:-1])
        first[1:] &= ~(same & free[:-1])
    unit_of = torch.where(free, first.cumsum(0) - 1, -1)
    return Units(unit_of=unit_of, row_of=packed.row_of[first])


def budgets(row_of: Tensor, rows: int, rate: float) -> Tensor:
    """[B] how many of each row's units to select: round(rate · n), at least 1 where there is one."""
    counts = torch.bincount(row_of, minlength=rows)
    return (counts * rate).round().long().clamp(min=1).minimum(counts)


def choose(row_of: Tensor, wanted: Tensor, generator: Generator) -> Tensor:
    """[U] bool: in each row, as many units as `wanted` ([B]) says, uniformly without replacement."""
    keys = torch.rand(len(row_of), generator=generator, dtype=torch.float64)
    order = (row_of + keys).argsort()  # keys < 1, so that rows stay together
    counts = torch.bincount(row_of, minlength=len(wanted))
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - starts[row_of]
    return rank < wanted[row_of]


def select(packed: Packed, rate: float, whole_words: bool, generator: Generator) -> Tensor:
    """[N] bool: a `rate` of each row's non-special positions (or words)."""
    found = units(packed, whole_words)
    wanted = budgets(found.row_of, len(packed.lengths), rate)
    return found.spread(choose(found.row_of, wanted, generator))


def select_spans(
    packed: Packed, rate: float, whole_words: bool, p: float, longest: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Contiguous spans until each row's budget is spent (SpanBERT, §3.1).

    Lengths are geometric with parameter `p`, cut at `longest` units; starts are uniform over the
    units not yet selected. The last span of a row is cut to the budget, and a span ends where it
    meets another one.

    :returns: [N] bool, the selected positions, and [N] long, each selected position's span (the
        number of its first unit), −1 elsewhere.
    """
    found = units(packed, whole_words)
    rows = len(packed.lengths)
    left = budgets(found.row_of, rows, rate)
    span_of = torch.full_like(found.row_of, -1)
    breaks = _breaks(packed, found)
    while bool((left > 0).any()):
        start = _starts((span_of < 0) & (left > 0)[found.row_of], found.row_of, rows, generator)
        length = _geometric(rows, p, longest, generator).minimum(left)
        blocked = (breaks + (span_of >= 0)).cumsum(0)
        unit = torch.arange(len(span_of))
        first = start[found.row_of]
        new = (first >= 0) & (unit >= first) & (unit < first + length[found.row_of])
        # A break before the span's own first unit does not end it; one after it does.
        new &= (blocked == blocked[first.clamp(min=0)]) & (span_of < 0)
        span_of = torch.where(new, first, span_of)
        left = left - torch.bincount(found.row_of[new], minlength=rows)
    spans = torch.cat([span_of, span_of.new_full((1,), -1)])[found.unit_of]
    return spans >= 0, spans


def _breaks(packed: Packed, found: Units) -> Tensor:
    """[U] 1 for units that do not directly follow the one before (a special position lies between)."""
    gap = packed.special.cumsum(0)
    last = torch.zeros(len(found.row_of), dtype=torch.long)
    free = ~packed.special
    last[found.unit_of[free]] = gap[free]
    breaks = torch.zeros_like(last)
    breaks[1:] = ((last[1:] != last[:-1]) | (found.row_of[1:] != found.row_of[:-1])).long()
    return breaks


def _starts(free: Tensor, row_of: Tensor, rows: int, generator: Generator) -> Tensor:
    """[B] one free unit of each row, uniformly; −1 where a row has none."""
    keys = torch.rand(len(row_of), generator=generator, dtype=torch.float64)
    keys = torch.where(free, keys, -1.0)
    best = torch.full((rows,), -1.0, dtype=torch.float64)
    best = best.scatter_reduce(0, row_of, keys, "amax")
    winners = (free & (keys == best[row_of])).nonzero().squeeze(1)
    starts = torch.full((rows,), -1)
    starts[row_of[winners]] = winners
    return starts


def _geometric(count: int, p: float, longest: int, generator: Generator) -> Tensor:
    """[count] lengths ≥ 1 with P(l) = p (1 − p)^(l − 1), cut at `longest`."""
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    lengths = (uniform.neg().log1p() / torch.log1p(torch.tensor(-p, dtype=torch.float64))).floor()
    return (lengths.long() + 1).clamp(max=longest)
