"""Step 8 of 9, as the trainer calls it: one step's gradients by the engine that holds for this encoder.

`Engine.aligned` cuts a step's stream along its objectives into micro-batches of bounded size, and sends each through
one of the ways of `metagrad`. An objective that lies whole in one micro-batch has its norm read off it. Only one that
is larger than that by itself is cut inside, along its rows (never inside ``row_multiple``, never where its losses need
each other). `Engine.check` compares ``fused`` with ``looped`` once before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import attrs
import torch
from torch import Tensor

from aang_core.batch.protocols import BoundOutput
from aang_core.batch.rows import Targets
from aang_core.batch.stream import FusedBatch, Segment
from aang_core.errors import ConfigError
from aang_core.method.gradient.metagrad import (
    Gradient,
    Model,
    StepResult,
    disagreement,
    fused,
    looped,
    one_objective,
    plain,
)
from aang_core.method.gradient.row_gradients import by_rows
from aang_core.method.gradient.tracked_layers import FusedUnsupportedError
from aang_core.method.precision import autocast
from aang_core.randomness import evaluating

TOLERANCE = 1e-4
"""The largest `metagrad.disagreement` between the engines on the first batch."""


class Engine:
    """Fills ``.grad`` and says how well each objective's gradient agrees with the dev gradient.

    :param kind: ``fused`` or ``looped``; `check` may change it to ``looped``.
    :param budget: most positions in one forward pass, 0 for no bound.
    :param precision: ``fp32``, or ``bf16`` for autocast in the passes.
    :ivar gap: what `check` found between the engines (`metagrad.disagreement`); None where it has not compared them.
    """

    def __init__(self, model: Model, kind: str, budget: int, precision: str) -> None:
        self.model, self.kind, self.budget, self.precision = model, kind, budget, precision
        self.device = next(model.backbone.body.parameters()).device
        self.gap: float | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of passes."""
        return autocast(self.device, self.precision)

    def plain(self, batch: FusedBatch, coefficients: Tensor) -> Tensor:
        """The losses [S] in fp64; ``Σ c_k g_k`` into ``.grad``, no alignments."""
        losses = []
        for group in cut(batch, self.budget):
            own = torch.zeros(len(group), dtype=torch.float64, device=self.device)
            for piece in self._pieces(batch, group):
                with self.autocast():
                    own = own + plain(self.model, piece, coefficients[group])
            losses.append(own)
        return torch.cat(losses)

    def aligned(
        self,
        batch: FusedBatch,
        coefficients: Tensor,
        dev_gradient: Gradient,
        *,
        examples: bool = False,
    ) -> StepResult:
        """The losses, ``Σ c_k g_k`` into ``.grad``, and the alignments of all objectives.

        :param examples: also each row's share of its objective's dot (``fused`` alone); see `metagrad.fused`.
        :raises ConfigError: where `examples` meets an objective larger than a micro-batch.

        Groups of whole objectives go through the engine; an objective that has to be cut goes through its pieces
        one by one, by its own gradient.
        """
        results = []
        for group in cut(batch, self.budget):
            pieces, own = self._pieces(batch, group), coefficients[group]
            if len(pieces) > 1 and examples:
                raise ConfigError(
                    f"alignments of single examples need objectives of at most {self.budget} positions; one has "
                    f"{batch.select(group).tokens} (raise training.micro_batch_tokens)"
                )
            with self.autocast():
                if len(pieces) > 1:
                    result = one_objective(self.model, pieces, float(own[0]), dev_gradient)
                elif self.kind == "looped":
                    result = looped(self.model, pieces[0], own, dev_gradient)
                else:
                    result = fused(self.model, pieces[0], own, dev_gradient, examples=examples)
            results.append(result)
        return StepResult.joined(results)

    def check(self, batch: FusedBatch, coefficients: Tensor, dev_gradient: Gradient) -> str:
        """Compare the engines on one batch, dropout and autocast off; ``.grad`` is left empty.

        :returns: why ``fused`` cannot be used, and then `kind` is ``looped`` from now on; or the empty string.
        """
        if self.kind == "looped":
            return ""
        reason, body = "", self.model.backbone.body
        with by_rows(body), evaluating(body), evaluating(self.model.heads):
            try:
                one_pass = fused(self.model, batch, coefficients, dev_gradient)
            except FusedUnsupportedError as cause:
                reason = str(cause)
            else:
                oracle = looped(self.model, batch, coefficients, dev_gradient)
                self.gap = disagreement(one_pass, oracle)
                if not self.gap <= TOLERANCE:
                    reason = (
                        f"the first batch's alignments differ from the loop's by {self.gap:.1e} "
                        f"(at most {TOLERANCE:.0e} is allowed)"
                    )
        for parameter in (*body.parameters(), *self.model.heads.parameters()):
            parameter.grad = None
        if reason:
            self.kind = "looped"
        return reason

    def _pieces(self, batch: FusedBatch, group: Sequence[int]) -> list[FusedBatch]:
        """A group's batch; of an objective that is too large by itself, the batches of its rows."""
        whole = batch if len(group) == len(batch.segments) else batch.select(group)
        if len(group) > 1 or not 0 < self.budget < whole.tokens:
            return [whole]
        return cut_rows(
            whole, 0, self.model.heads.outputs[whole.segments[0].objective], self.budget
        )


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
        dropped=None if batch.dropped is None else batch.dropped[start:stop],
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
