"""Cut a step's stream into pieces of bounded size, along objectives.

An objective that lies whole in one piece has its norm read off that piece. Only one that is larger than a piece
by itself is cut inside, along its rows (never inside ``row_multiple``, never where its losses need each other).
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from aang_core.batch.protocols import BoundOutput
from aang_core.batch.rows import Targets
from aang_core.batch.stream import FusedBatch, Segment


def cut(batch: FusedBatch, budget: int) -> list[list[int]]:
    """Groups of segments (positions in ``batch.segments``, in order) of at most `budget` positions each.

    A segment larger than the budget is a group of its own. With budget 0 there is one group.
    """
    if budget == 0:
        return [list(range(len(batch.segments)))]
    groups: list[list[int]] = []
    filled = 0
    for i, segment in enumerate(batch.segments):
        size = segment.stop - segment.start
        if not groups or filled + size > budget:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += size
    return groups


def cut_rows(batch: FusedBatch, segment: int, output: BoundOutput, budget: int) -> list[FusedBatch]:
    """One segment as several batches of at most `budget` positions (where its rows allow), counts unchanged."""
    whole = batch.select([segment])
    if not output.pointwise:
        return [whole]
    step, lengths = output.row_multiple, whole.lengths
    ranges: list[tuple[int, int]] = []
    start, filled = 0, 0
    for row in range(0, len(lengths), step):
        size = sum(lengths[row : row + step])
        if row > start and filled + size > budget:
            ranges.append((start, row))
            start, filled = row, 0
        filled += size
    ranges.append((start, len(lengths)))
    return [_rows_of(whole, a, b) for a, b in ranges]


def _rows_of(batch: FusedBatch, first: int, last: int) -> FusedBatch:
    """Rows `first` to `last` of a batch with one segment."""
    start, stop = int(batch.offsets[first]), int(batch.offsets[last])
    (segment,), (targets,) = batch.segments, batch.targets
    low, high = (first, last) if targets.level == "row" else (start, stop)
    return FusedBatch(
        inputs={name: value[start:stop] for name, value in batch.inputs.items()},
        offsets=batch.offsets[first : last + 1] - start,
        rules=batch.rules[first:last],
        segments=(Segment(segment.objective, 0, last - first, 0, stop - start, segment.count),),
        targets=(_within(targets, low, high),),
        noise=None if batch.noise is None else batch.noise[start:stop],
    )


def _within(targets: Targets, low: int, high: int) -> Targets:
    leading = targets.index if targets.index.ndim == 1 else targets.index[:, 0]
    keep = (leading >= low) & (leading < high)
    return attrs.evolve(
        targets,
        index=targets.index[keep] - low,
        value=targets.value[keep],
        extra={name: tensor[keep] for name, tensor in targets.extra.items()},
        weight=None if targets.weight is None else targets.weight[keep],
    )


def scattered(values: Tensor, places: Sequence[int], size: int) -> Tensor:
    """[size] zeros with `values` at `places`."""
    out = values.new_zeros(size)
    out[torch.tensor(list(places), dtype=torch.long, device=values.device)] = values
    return out
