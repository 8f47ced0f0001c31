"""Step 5 of 9. In: objectives, row shares, a generator. Out: FusedBatch, one packed stream with its layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from aang_core.rows import Row, Targets


@attrs.frozen(eq=False)
class RowRule:
    """One row's attention rule. `allowed`: [T, T] bool for the tag ``matrix``, else None."""

    tag: str = "full"
    allowed: Tensor | None = None


FULL = RowRule()


@attrs.frozen(eq=False)
class Segment:
    """The part of a stream that belongs to one objective; half-open ranges.

    :param objective: position in the step's list of losses; 0 is the end-task.
    :param count: targets of the objective in the whole step (not only in this piece of it).
    """

    objective: int
    row_start: int
    row_stop: int
    start: int
    stop: int
    count: int


@attrs.frozen(eq=False, slots=False)  # a dict for the cached lengths
class FusedBatch:
    """All rows of a step in one packed stream, objective after objective.

    :param inputs: each [N].
    :param offsets: [B + 1] on the CPU.
    :param rules: B of them.
    :param segments: contiguous, in stream order, covering the stream.
    :param targets: one per segment; indices count from the segment's start.
    :param noise: [N, E] to be added to the input embeddings, or None.
    """

    inputs: Mapping[str, Tensor]
    offsets: Tensor
    rules: tuple[RowRule, ...]
    segments: tuple[Segment, ...] = ()
    targets: tuple[Targets, ...] = ()
    noise: Tensor | None = None

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The positions in each row."""
        return tuple((self.offsets[1:] - self.offsets[:-1]).tolist())

    @property
    def tokens(self) -> int:
        """N."""
        return int(self.offsets[-1])


def pack_rows(rows: Sequence[Row]) -> tuple[dict[str, Tensor], Tensor]:
    """Concatenate the inputs of rows: name → [N], and the offsets [B + 1]."""
    lengths = torch.tensor([0] + [len(row) for row in rows])
    names = rows[0].inputs.keys()
    return {name: torch.cat([row.inputs[name] for row in rows]) for name in names}, lengths.cumsum(0)


def plain_batch(rows: Sequence[Row]) -> FusedBatch:
    """Unchanged rows under the full rule, without objectives: for evaluation and features."""
    inputs, offsets = pack_rows(rows)
    return FusedBatch(inputs=inputs, offsets=offsets, rules=(FULL,) * len(rows))
