"""The encoder's input: `FusedBatch`, one packed stream with each row's rule and each objective's segment.

`aang_core.batch.packing` makes it (step 5 of 9), a backbone encodes it (step 6), heads and gradients read its segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from aang_core.batch.rows import Targets


def directed(tag: str, length: int) -> Tensor:
    """[T, T] bool, a new tensor, of the tags that depend on the length alone: ``full``, ``causal``, ``anticausal``.

    Row i is what position i may attend to.
    """
    everything = torch.ones(length, length, dtype=torch.bool)
    return {"full": everything, "causal": everything.tril(), "anticausal": everything.triu()}[tag]


@attrs.frozen(eq=False)
class RowRule:
    """One row's attention rule.

    :param tag: ``full``, ``causal``, ``anticausal`` or ``matrix``.
    :param allowed: [T, T] bool for the tag ``matrix``, else None.
    """

    tag: str = "full"
    allowed: Tensor | None = None

    def matrix(self, length: int) -> Tensor:
        """[T, T] bool, a new tensor: row i is what position i may attend to."""
        if self.allowed is not None:
            return self.allowed.clone()
        return directed(self.tag, length)


FULL = RowRule()


@attrs.frozen(eq=False)
class Segment:
    """The part of a stream that belongs to one objective; half-open ranges.

    :param objective: its number among the run's losses: 0 is the end-task, 1 + k auxiliary objective k.
    :param row_start, row_stop: its rows.
    :param start, stop: its positions.
    :param count: targets of the objective in the whole step (not only in this piece of it).
    """

    objective: int
    row_start: int
    row_stop: int
    start: int
    stop: int
    count: int


@attrs.frozen(eq=False, slots=False)  # a dict for the cached lengths and the backbone's plan
class FusedBatch:
    """All rows of a step in one packed stream, objective after objective.

    :param inputs: each [N].
    :param offsets: [B + 1] on the CPU.
    :param rules: B of them.
    :param segments: contiguous, in stream order, covering the stream.
    :param targets: one per segment; indices count from the segment's start.
    :param noise: [N, E] to be added to the input embeddings, or None.
    :param dropped: [N] bool, positions whose input embedding is zero, or None.
    :param asked: one per segment where any is there: its rows before their transform, under the full rule, for outputs
        that ask the teacher; None for the others.
    """

    inputs: Mapping[str, Tensor]
    offsets: Tensor
    rules: tuple[RowRule, ...]
    segments: tuple[Segment, ...] = ()
    targets: tuple[Targets, ...] = ()
    noise: Tensor | None = None
    dropped: Tensor | None = None
    asked: tuple[FusedBatch | None, ...] = ()

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The positions in each row."""
        return tuple((self.offsets[1:] - self.offsets[:-1]).tolist())

    @property
    def tokens(self) -> int:
        """N."""
        return int(self.offsets[-1])

    def covered(self, embedded: Tensor) -> Tensor:
        """Input embeddings [N, E] as the layers get them: noise added, and zero (without a gradient) where dropped."""
        if self.noise is not None:
            embedded = embedded + self.noise.to(embedded)
        if self.dropped is not None:
            embedded = embedded.masked_fill(self.dropped.to(embedded.device)[:, None], 0.0)
        return embedded

    def select(self, segments: Sequence[int]) -> FusedBatch:
        """The stream of some segments alone (positions in `segments`), in their order; counts stay the step's."""
        chosen = [self.segments[i] for i in segments]
        rows = [row for s in chosen for row in range(s.row_start, s.row_stop)]
        device = next(iter(self.inputs.values())).device
        positions = torch.cat([torch.arange(s.start, s.stop) for s in chosen]).to(device)
        placed, row, start = [], 0, 0
        for s in chosen:
            row_stop, stop = row + s.row_stop - s.row_start, start + s.stop - s.start
            placed.append(Segment(s.objective, row, row_stop, start, stop, s.count))
            row, start = row_stop, stop
        return FusedBatch(
            inputs={name: value[positions] for name, value in self.inputs.items()},
            offsets=torch.tensor([0, *(self.lengths[r] for r in rows)]).cumsum(0),
            rules=tuple(self.rules[r] for r in rows),
            segments=tuple(placed),
            targets=tuple(self.targets[i] for i in segments),
            noise=None if self.noise is None else self.noise[positions],
            dropped=None if self.dropped is None else self.dropped[positions],
            asked=tuple(self.asked[i] for i in segments) if self.asked else (),
        )

    def to(self, device: torch.device) -> FusedBatch:
        """The same batch with its tensors (but for the offsets) on `device`."""
        if device.type == "cpu":
            return self
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> FusedBatch:
        """The same batch in page-locked memory, from which `to` copies to a CUDA device while the processor goes on."""
        return self._moved(Tensor.pin_memory)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> FusedBatch:
        return attrs.evolve(
            self,
            inputs={name: move(tensor) for name, tensor in self.inputs.items()},
            targets=tuple(targets.moved(move) for targets in self.targets),
            noise=None if self.noise is None else move(self.noise),
            dropped=None if self.dropped is None else move(self.dropped),
            asked=tuple(None if rows is None else rows._moved(move) for rows in self.asked),
        )
