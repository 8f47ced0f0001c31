"""Step 8 of 9, the fast way: all objectives' alignments from one forward and one backward pass.

Each row of the stream belongs to one objective, so a layer with inputs a and output gradients g (per position) has
the weight gradient ``c_k G_k = Σ_{positions of k} g aᵀ`` for objective k. While the layers form the gradient of
``Σ c_k L_k`` segment by segment, they take ``⟨c_k G_k, V⟩`` and ``‖c_k G_k‖²`` on the way and return the sum. The
multiply-adds are those of plain training; beside them stands one buffer of the size of a weight.

The layers are those of the encoder only: what a head does with a body parameter is not seen here, and enters
``.grad`` through autograd as usual. `metagrad.looped` is the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from aang_core.batch.stream import FusedBatch
from aang_core.method import tracked_layers
from aang_core.method.metagrad import Alignment, Gradient, Model, StepResult, dot
from aang_core.method.tracked_layers import FusedUnsupportedError, Tape


def fused(
    model: Model,
    batch: FusedBatch,
    coefficients: Tensor,
    dev_gradient: Gradient,
    *,
    examples: bool = False,
) -> StepResult:
    """The same as `metagrad.looped`, from one pass over the whole stream.

    :param coefficients: [S] in the order of ``batch.segments``.
    :param examples: also each row's share of its objective's dot product, in ``StepResult.examples`` ([B];
        the shares of an objective's rows sum to its dot).
    :raises FusedUnsupportedError: where a layer is not covered, does not see exactly the N packed positions,
        or is applied twice.
    """
    body = model.body()
    tape = Tape.of(batch, body, dev_gradient, examples=examples)
    with tracked(model.backbone.body, tape):
        losses = model.heads.losses(model.backbone.encode(batch), batch)
        torch.autograd.backward((losses * coefficients.to(losses)).sum())
    if repeated := sorted(name for name, count in tape.uses.items() if count > 1):
        raise FusedUnsupportedError(f"{repeated[0]} is applied {tape.uses[repeated[0]]} times")
    scale = coefficients.to(tape.dots)
    observed = (scale != 0) & torch.tensor([s.count > 0 for s in batch.segments]).to(scale.device)
    safe = torch.where(observed, scale, torch.ones_like(scale))
    zero = torch.zeros_like(safe)
    alignment = Alignment(
        dots=torch.where(observed, tape.dots / safe, zero),
        squared_norms=torch.where(observed, tape.squared_norms / safe.square(), zero),
        observed=observed,
        dev_norm=dot(dev_gradient, dev_gradient).sqrt(),
    )
    shares = _row_shares(tape, batch, safe, observed) if examples else None
    return StepResult(losses=losses.detach(), alignment=alignment, examples=shares)


def _row_shares(tape: Tape, batch: FusedBatch, scale: Tensor, observed: Tensor) -> Tensor:
    """[B] sums of the positions' products over each row, divided by the row's coefficient."""
    lengths = torch.tensor(batch.lengths, device=scale.device)
    rows = torch.tensor([s.row_stop - s.row_start for s in batch.segments], device=scale.device)
    owner = torch.repeat_interleave(torch.arange(len(rows), device=scale.device), rows)
    row_of = torch.repeat_interleave(torch.arange(len(lengths), device=scale.device), lengths)
    assert tape.position_dots is not None
    sums = torch.zeros(len(lengths), dtype=scale.dtype, device=scale.device)
    sums = sums.index_add(0, row_of, tape.position_dots.to(scale.dtype))
    return torch.where(observed[owner], sums / scale[owner], torch.zeros_like(sums))


@contextmanager
def tracked(body: nn.Module, tape: Tape) -> Iterator[None]:
    """Let the encoder's layers write on `tape` inside the block (their ``forward`` is replaced meanwhile).

    :raises FusedUnsupportedError: where a trainable parameter belongs to a layer that cannot.
    """
    replaced: list[nn.Module] = []
    try:
        for name, module in body.named_modules():
            own = {n: p for n, p in module.named_parameters(recurse=False) if p.requires_grad}
            if not own:
                continue
            forward = tracked_layers.tracked_forward(module, name, tape)
            if forward is None:
                raise FusedUnsupportedError(
                    f"{name} is a {type(module).__name__}, which has no segment gradients"
                )
            module.forward = forward
            replaced.append(module)
        yield
    finally:
        for module in replaced:
            del module.forward


def disagreement(left: StepResult, right: StepResult) -> float:
    """How far a result is from the oracle's of the same step.

    It is the largest ``|Δdot| / (‖g_k‖ ‖V‖)`` or ``|Δ‖g_k‖| / ‖g_k‖``; NaN where a product is not finite, 0
    where nothing is observed.

    :param right: the oracle's, whose norms the differences are relative to.
    """
    a, b = left.alignment, right.alignment
    both = a.observed.cpu() & b.observed.cpu()
    if not bool(both.any()):
        return 0.0
    scale = b.squared_norms.cpu().sqrt() * b.dev_norm.cpu()
    gap = (a.dots.cpu().double() - b.dots.cpu().double()).abs() / scale.double().clamp(min=1e-30)
    norms = (a.squared_norms.cpu().sqrt() - b.squared_norms.cpu().sqrt()).abs()
    relative = norms / b.squared_norms.cpu().sqrt().clamp(min=1e-30)
    return float(torch.maximum(gap[both].max(), relative[both].max().double()))
