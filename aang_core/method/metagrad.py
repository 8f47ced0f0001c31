"""Step 8 of 9. In: losses and the dev gradient. Out: Alignment, and the weighted gradient in ``.grad``.

The first-order meta-gradient of an objective's weight is ``−β ⟨∇θ L_k, ∇θ L_dev⟩`` over the body's parameters
(paper, eq. 4 and 5). This module holds the obviously correct way to get it, one backward pass per objective;
`aang_core.method.fused` gets the same from a single one.

A gradient is of the body when it flows through `Hidden`. What a head does with a body parameter (a decoder tied
to the embeddings) enters ``.grad`` but not the alignment, as in the paper, whose decoder is a copy.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn

from aang_core.batch.protocols import Backbone
from aang_core.batch.rows import Hidden
from aang_core.batch.stream import FusedBatch
from aang_core.method.heads import Heads

Gradient = Mapping[str, Tensor]
"""Body parameter name → a tensor of its shape, in fp32 or wider."""


@attrs.frozen(eq=False)
class Alignment:
    """What a step says about each of its S losses; the end-task is the first.

    :param dots: [S] ⟨g_k, V⟩ with V the dev gradient.
    :param squared_norms: [S] ‖g_k‖².
    :param observed: [S] bool; False without rows, targets or weight, which is not the same as zero.
    :param dev_norm: ‖V‖.
    """

    dots: Tensor
    squared_norms: Tensor
    observed: Tensor
    dev_norm: Tensor

    def cosines(self) -> Tensor:
        """[S], 0 where a gradient vanishes."""
        scale = self.squared_norms.clamp(min=0).sqrt() * self.dev_norm
        return torch.where(scale > 0, self.dots / scale, torch.zeros_like(self.dots))

    def values(self, kind: str) -> Tensor:
        """[S] ``cosine`` (public code) or ``dot`` (paper)."""
        return self.cosines() if kind == "cosine" else self.dots


@attrs.frozen(eq=False)
class StepResult:
    """Mean losses [S] (detached), their alignment, and where it was asked for each row's share of it ([B])."""

    losses: Tensor
    alignment: Alignment
    examples: Tensor | None = None


@attrs.frozen(eq=False)
class Model:
    """The encoder with its heads: what a step differentiates."""

    backbone: Backbone
    heads: Heads

    def body(self) -> dict[str, nn.Parameter]:
        """The trainable parameters of the encoder by name."""
        return {n: p for n, p in self.backbone.body.named_parameters() if p.requires_grad}


def dot(left: Gradient, right: Gradient) -> Tensor:
    """⟨left, right⟩ over the parameters that both have, accumulated in fp32 or wider."""
    products = [
        torch.dot(_wide(left[name]).flatten(), _wide(right[name]).flatten())
        for name in left
        if name in right
    ]
    return torch.stack(products).sum()


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def plain(model: Model, batch: FusedBatch, coefficients: Tensor) -> Tensor:
    """One backward pass of ``Σ c_k L_k`` into ``.grad``, without alignments. Returns the losses [S].

    :param coefficients: [S] in the order of ``batch.segments``.
    """
    losses = model.heads.losses(model.backbone.encode(batch), batch)
    torch.autograd.backward((losses * coefficients.to(losses)).sum())
    return losses.detach()


def looped(
    model: Model, batch: FusedBatch, coefficients: Tensor, dev_gradient: Gradient
) -> StepResult:
    """One forward and backward pass per objective: the oracle, and what runs where nothing else can.

    Adds ``Σ c_k g_k`` to ``.grad`` of body and heads. An objective with ``c_k = 0`` or no target is unobserved.

    :param coefficients: [S] in the order of ``batch.segments``.
    """
    body = model.body()
    losses, dots, norms, observed = [], [], [], []
    zero = next(iter(dev_gradient.values())).new_zeros(())
    for i, (segment, coefficient) in enumerate(
        zip(batch.segments, coefficients.tolist(), strict=True)
    ):
        loss, gradient = one_objective(model, body, batch.select([i]), coefficient)
        losses.append(loss)
        counted = coefficient != 0 and segment.count > 0
        dots.append(dot(gradient, dev_gradient) if counted and gradient else zero)
        norms.append(dot(gradient, gradient) if counted and gradient else zero)
        observed.append(counted)
    alignment = Alignment(
        dots=torch.stack(dots),
        squared_norms=torch.stack(norms),
        observed=torch.tensor(observed),
        dev_norm=dot(dev_gradient, dev_gradient).sqrt(),
    )
    return StepResult(losses=torch.stack(losses), alignment=alignment)


def one_objective(
    model: Model, body: Mapping[str, nn.Parameter], batch: FusedBatch, coefficient: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective's loss and its own body gradient (unscaled); adds the scaled gradients to ``.grad``."""
    hidden = model.backbone.encode(batch)
    leaf = hidden.states.detach().requires_grad_()
    loss = model.heads.losses(Hidden(leaf, hidden.offsets), batch)[0]
    if coefficient == 0 or not loss.requires_grad:
        return loss.detach(), {}
    torch.autograd.backward(loss * coefficient)
    assert leaf.grad is not None
    grads = torch.autograd.grad(
        hidden.states, list(body.values()), leaf.grad / coefficient, allow_unused=True
    )
    own = {name: g for name, g in zip(body, grads, strict=True) if g is not None}
    for name, gradient in own.items():
        parameter = body[name]
        scaled = (gradient * coefficient).to(parameter.dtype)
        parameter.grad = scaled if parameter.grad is None else parameter.grad.add_(scaled)
    return loss.detach(), own
