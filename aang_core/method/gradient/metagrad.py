"""Step 8 of 9. In: losses and the dev gradient. Out: Alignment, and the weighted gradient in ``.grad``.

The first-order meta-gradient of an objective's weight is ``−β ⟨∇θ L_k, ∇θ L_dev⟩`` over the body's parameters
(paper, eq. 4 and 5). There are three ways through a step:

- `plain`: one forward and one backward pass, without alignments;
- `looped`: one forward and backward pass per objective, the obviously correct way to get the alignments;
- `fused`: the same alignments from a single forward and backward pass.

How ``fused`` works: each row of the stream belongs to one objective, so a layer with inputs a and output gradients g
(per position) has the weight gradient ``c_k G_k = Σ_{positions of k} g aᵀ`` for objective k. While the layers form the
gradient of ``Σ c_k L_k`` segment by segment (`tracked_layers`), they take ``⟨c_k G_k, V⟩`` and ``‖c_k G_k‖²`` on the
way and return the sum. The number of multiply-adds is that of plain training; one buffer of the size of a weight is
added. (Of short segments the products cost less without ``G_k``, from their positions.)

V, dots and norms are over the parameters of `Model.compared`, some of the layers. The others run as in plain training.

A gradient is of the body when it flows through `Hidden`. What a head does with a body parameter (a decoder tied
to the embeddings) enters ``.grad`` but not the alignment, as in the paper, whose decoder is a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import torch
from torch import Tensor, nn

from aang_core.batch.protocols import Backbone
from aang_core.batch.rows import Hidden
from aang_core.batch.stream import FusedBatch
from aang_core.method.gradient import tracked_layers
from aang_core.method.gradient.row_gradients import added, coalesced, inner
from aang_core.method.gradient.tracked_layers import FusedUnsupportedError, Tape
from aang_core.method.heads import ObjectiveHeads

Gradient = Mapping[str, Tensor]
"""Body parameter name → a tensor of its shape, in fp32 or wider; of an embedding maybe sparse (`row_gradients`)."""


@attrs.frozen(eq=False)
class Alignment:
    """What a step says about each of its S losses; the end-task is the first.

    :param dots: [S] ⟨g_k, V⟩ with V the dev gradient.
    :param squared_norms: [S] ‖g_k‖².
    :param observed: [S] bool; False without rows, targets or weight, which is not the same as an alignment of zero;
        in a training step (`train.step`) also without a gradient.
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

    @classmethod
    def joined(cls, parts: Sequence[StepResult]) -> StepResult:
        """The result of a whole step, from those of its segments in their order."""
        if len(parts) == 1:
            return parts[0]
        aligned = [part.alignment for part in parts]
        examples = [part.examples for part in parts if part.examples is not None]
        return cls(
            losses=torch.cat([part.losses for part in parts]),
            alignment=Alignment(
                dots=torch.cat([each.dots for each in aligned]),
                squared_norms=torch.cat([each.squared_norms for each in aligned]),
                observed=torch.cat([each.observed for each in aligned]),
                dev_norm=aligned[0].dev_norm,
            ),
            examples=torch.cat(examples) if len(examples) == len(parts) else None,
        )


@attrs.frozen(eq=False)
class Model:
    """The encoder with its heads: what a step differentiates.

    :param alignment_layers: the layers over which gradients are compared, as ``meta.alignment_layers``.
    """

    backbone: Backbone
    heads: ObjectiveHeads
    alignment_layers: str = "all"

    def body(self) -> dict[str, nn.Parameter]:
        """The trainable parameters of the encoder by name."""
        return {n: p for n, p in self.backbone.body.named_parameters() if p.requires_grad}

    def compared(self) -> dict[str, nn.Parameter]:
        """Those of the body over which gradients are compared: V has these names, and dots and norms are over them."""
        body = self.body()
        layers = chosen(layers_of(body), self.alignment_layers)
        return {name: body[name] for layer in layers for name in layer}


def layers_of(names: Iterable[str]) -> list[list[str]]:
    """The names of parameters, in the encoder's order, layer by layer.

    The first number in a name tells its layer (``encoder.layer.3.output.dense.weight``). What comes before all layers
    (embeddings) is one of its own; what has no number and comes later belongs to the layer before it (a last norm).
    """
    layers: list[list[str]] = []
    last: list[str] = []
    for name in names:
        parts = name.split(".")
        place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        own = last if place is None else parts[: place + 1]
        if not layers or own != last:
            layers.append([])
        layers[-1].append(name)
        last = own
    return layers


def chosen(layers: list[list[str]], which: str) -> list[list[str]]:
    """Those that ``meta.alignment_layers`` means."""
    if which == "all":
        return layers
    kind, number = which.split("-")
    if kind == "last":
        return layers[-int(number) :]
    last = len(layers) - 1
    return [layer for i, layer in enumerate(layers) if i % int(number) == 0 or i == last]


def dot(left: Gradient, right: Gradient) -> Tensor:
    """⟨left, right⟩ over the parameters that both have, accumulated in fp32 or wider."""
    products = [inner(_wide(left[name]), _wide(right[name])) for name in left if name in right]
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
    results = [
        one_objective(model, [batch.select([i])], coefficient, dev_gradient)
        for i, coefficient in enumerate(coefficients.tolist())
    ]
    return StepResult.joined(results)


def one_objective(
    model: Model, pieces: Sequence[FusedBatch], coefficient: float, dev_gradient: Gradient
) -> StepResult:
    """One objective by its own gradient, summed over its pieces: norms of pieces do not add.

    Adds the scaled gradients to ``.grad``; the result is of one segment.

    :param pieces: batches of one segment each, all of them of this objective, with the same count of targets.
    """
    body = model.body()
    loss, own = _own_gradient(model, body, pieces[0], coefficient)
    for piece in pieces[1:]:
        part, gradient = _own_gradient(model, body, piece, coefficient)
        loss = loss + part
        for name, value in gradient.items():
            own[name] = added(own[name], value) if name in own else value
    own = {name: coalesced(gradient) for name, gradient in own.items() if name in dev_gradient}
    observed = coefficient != 0 and pieces[0].segments[0].count > 0
    dev_norm = dot(dev_gradient, dev_gradient).sqrt()
    zero = torch.zeros_like(dev_norm)
    alignment = Alignment(
        dots=(dot(own, dev_gradient) if observed and own else zero)[None],
        squared_norms=(dot(own, own) if observed and own else zero)[None],
        observed=torch.tensor([observed], device=zero.device),
        dev_norm=dev_norm,
    )
    return StepResult(losses=loss[None], alignment=alignment)


def _own_gradient(
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
        if parameter.grad is None:
            parameter.grad = scaled
        elif parameter.grad.is_sparse:
            parameter.grad = added(parameter.grad, scaled)
        else:
            parameter.grad.add_(scaled)
    return loss.detach(), own


def fused(
    model: Model,
    batch: FusedBatch,
    coefficients: Tensor,
    dev_gradient: Gradient,
    *,
    examples: bool = False,
) -> StepResult:
    """The same as `looped`, from one pass over the whole stream.

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
    """Let the layers with parameters of V write on `tape` inside the block (their ``forward`` is replaced meanwhile).

    The others run as they are: what flows through them ends in ``.grad`` alone.

    :raises FusedUnsupportedError: where a parameter of V belongs to a layer that cannot.
    """
    replaced: list[nn.Module] = []
    try:
        for name, module in body.named_modules():
            prefix = f"{name}." if name else ""
            if not any(
                prefix + n in tape.dev_gradient for n, _ in module.named_parameters(recurse=False)
            ):
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
