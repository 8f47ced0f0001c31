"""Step 8 of 9, as the trainer calls it: one step's gradients by the engine that holds for this encoder.

Cuts the step into micro-batches, and compares ``fused`` with ``looped`` once before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from aang_core.batch.micro_batches import cut, cut_rows, scattered
from aang_core.batch.stream import FusedBatch
from aang_core.errors import ConfigError
from aang_core.method.fused import disagreement, fused
from aang_core.method.metagrad import (
    Alignment,
    Gradient,
    Model,
    StepResult,
    dot,
    looped,
    one_objective,
    plain,
)
from aang_core.method.precision import autocast
from aang_core.method.tracked_layers import FusedUnsupportedError
from aang_core.randomness import evaluating

TOLERANCE = 1e-4
"""The largest `fused.disagreement` between the engines on the first batch."""


class Engine:
    """Fills ``.grad`` and says how each objective's gradient lies to the dev gradient.

    :param kind: ``fused`` or ``looped``; `check` may change it to ``looped``.
    :param budget: most positions in one forward pass, 0 for no bound.
    :param precision: ``fp32``, or ``bf16`` for autocast in the passes.
    :ivar gap: what `check` found between the engines (`fused.disagreement`); None where it has not compared them.
    """

    def __init__(self, model: Model, kind: str, budget: int, precision: str) -> None:
        self.model, self.kind, self.budget, self.precision = model, kind, budget, precision
        self.device = next(model.backbone.body.parameters()).device
        self.gap: float | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of passes."""
        return autocast(self.device, self.precision)

    def plain(self, batch: FusedBatch, coefficients: Tensor) -> Tensor:
        """The losses [S]; ``Σ c_k g_k`` into ``.grad``, no alignments."""
        losses = coefficients.new_zeros(len(batch.segments)).to(self.device)
        for group in cut(batch, self.budget):
            for piece in self._pieces(batch, group):
                with self.autocast():
                    own = plain(self.model, piece, coefficients[group])
                losses = losses + scattered(own.to(losses), group, len(losses))
        return losses

    def aligned(
        self,
        batch: FusedBatch,
        coefficients: Tensor,
        dev_gradient: Gradient,
        *,
        examples: bool = False,
    ) -> StepResult:
        """The losses, ``Σ c_k g_k`` into ``.grad``, and the alignments of all objectives.

        :param examples: also each row's share of its objective's dot (``fused`` alone); see `fused.fused`.
        :raises ConfigError: where `examples` meets an objective larger than a micro-batch.

        Groups of whole objectives go through the engine; an objective that has to be cut goes through its pieces
        one by one with its own gradient summed up beside them, since norms of pieces do not add.
        """
        results: list[tuple[list[int], StepResult]] = []
        for group in cut(batch, self.budget):
            pieces = self._pieces(batch, group)
            if len(pieces) > 1 and examples:
                raise ConfigError(
                    f"alignments of single examples need objectives of at most {self.budget} positions; one has "
                    f"{batch.select(group).tokens} (raise training.micro_batch_tokens)"
                )
            if len(pieces) > 1:
                result = _in_pieces(self, pieces, coefficients[group], dev_gradient)
            elif self.kind == "looped":
                with self.autocast():
                    result = looped(self.model, pieces[0], coefficients[group], dev_gradient)
            else:
                with self.autocast():
                    result = fused(
                        self.model,
                        pieces[0],
                        coefficients[group],
                        dev_gradient,
                        examples=examples,
                    )
            results.append((group, result))
        return _merged(results, len(batch.segments))

    def check(self, batch: FusedBatch, coefficients: Tensor, dev_gradient: Gradient) -> str:
        """Compare the engines on one batch, dropout and autocast off; ``.grad`` is left empty.

        :returns: why ``fused`` cannot be used, and then `kind` is ``looped`` from now on; or the empty string.
        """
        if self.kind == "looped":
            return ""
        reason = ""
        with evaluating(self.model.backbone.body), evaluating(self.model.heads):
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
        for parameter in (*self.model.backbone.body.parameters(), *self.model.heads.parameters()):
            parameter.grad = None
        if reason:
            self.kind = "looped"
        return reason

    def _pieces(self, batch: FusedBatch, group: Sequence[int]) -> list[FusedBatch]:
        if len(group) == len(batch.segments) and not self._too_large(batch):
            return [batch]
        whole = batch.select(group)
        if len(group) > 1 or not self._too_large(whole):
            return [whole]
        output = self.model.heads.outputs[whole.segments[0].objective]
        return cut_rows(whole, 0, output, self.budget)

    def _too_large(self, batch: FusedBatch) -> bool:
        return 0 < self.budget < batch.tokens


def _in_pieces(
    engine: Engine, pieces: Sequence[FusedBatch], coefficient: Tensor, dev_gradient: Gradient
) -> StepResult:
    """One objective, piece by piece; its own gradient is what each piece adds to ``.grad`` of the body's part."""
    body = engine.model.body()
    total: dict[str, Tensor] = {}
    loss = coefficient.new_zeros(()).to(engine.device)
    for piece in pieces:
        with engine.autocast():
            part, gradient = one_objective(engine.model, body, piece, float(coefficient[0]))
        loss = loss + part
        for name, value in gradient.items():
            total[name] = total[name].add_(value) if name in total else value.clone()
    observed = bool(total) and float(coefficient[0]) != 0 and pieces[0].segments[0].count > 0
    zero = torch.zeros((), device=engine.device)
    alignment = Alignment(
        dots=(dot(total, dev_gradient) if observed else zero)[None],
        squared_norms=(dot(total, total) if observed else zero)[None],
        observed=torch.tensor([observed]),
        dev_norm=dot(dev_gradient, dev_gradient).sqrt(),
    )
    return StepResult(losses=loss[None], alignment=alignment)


def _merged(results: Sequence[tuple[list[int], StepResult]], size: int) -> StepResult:
    if len(results) == 1:
        return results[0][1]

    def spread(values: list[Tensor]) -> Tensor:
        parts = zip(values, (group for group, _ in results), strict=True)
        return torch.stack([scattered(value, group, size) for value, group in parts]).sum(0)

    alignments = [result.alignment for _, result in results]
    examples = [result.examples for _, result in results if result.examples is not None]
    return StepResult(
        examples=torch.cat(examples) if len(examples) == len(results) else None,
        losses=spread([result.losses for _, result in results]),
        alignment=Alignment(
            dots=spread([a.dots.double() for a in alignments]),
            squared_norms=spread([a.squared_norms.double() for a in alignments]),
            observed=spread([a.observed.cpu().long() for a in alignments]).bool(),
            dev_norm=alignments[0].dev_norm,
        ),
    )
