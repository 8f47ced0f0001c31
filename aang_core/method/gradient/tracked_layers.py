"""Layers whose backward pass also takes each objective's dot product with the dev gradient, and its norm.

One `torch.autograd.Function` for each kind of parameterised layer. They *return* the weight's gradient, so that
accumulation, tied weights, frozen layers, activation checkpointing and data parallelism go on through autograd.
S segments, N positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.stream import FusedBatch
from aang_core.errors import AangError
from aang_core.method.gradient.row_gradients import of_rows, rows_at


class FusedUnsupportedError(AangError):
    """The encoder does something that segment gradients cannot be read off; the loop has to run."""


_PASSES = 25.0
_POSITION = 1.3
"""What a segment's two products cost beside the sum of gradients, in units of out · in multiply-adds, on a CPU
(docs/performance.md): from its own gradient 25, however short it is (passes over memory); from its n positions 1.3 n
for the dot, and two Gram matrices for the norm."""


def is_short(positions: int, shape: tuple[int, int]) -> bool:
    """Whether a segment's products cost less from its positions than from its gradient of this shape."""
    return _POSITION * positions + positions**2 * sum(1 / size for size in shape) < _PASSES


@attrs.frozen(eq=False)
class ShortSegments:
    """The segments of a stream whose products come from their positions, M segments with P positions in all.

    :param numbers: [M] which they are. :param positions: [P] theirs in the stream.
    :param padded: [M, n] each segment's places in `positions`, padded. :param real: [M, n] bool, False on the padding.
    """

    numbers: Tensor
    positions: Tensor
    padded: Tensor
    real: Tensor

    @classmethod
    def of(
        cls, spans: Sequence[tuple[int, int]], numbers: Sequence[int], device: torch.device
    ) -> Self:
        """Those of the `spans` with these numbers."""
        lengths = torch.tensor([spans[s][1] - spans[s][0] for s in numbers])
        place = torch.arange(int(lengths.max()))
        real = place < lengths[:, None]
        padded = ((lengths.cumsum(0) - lengths)[:, None] + place) * real
        positions = torch.cat([torch.arange(*spans[s]) for s in numbers])
        found = (torch.tensor(numbers), positions, padded, real)
        return cls(*(tensor.to(device) for tensor in found))

    def products(self, gradients: Tensor, inputs: Tensor, dev: Tensor) -> tuple[Tensor, Tensor]:
        """[2, M] dots and squared norms, and the sum [out, in] of the gradients, all segments at once.

        ``⟨G, V⟩ = Σ_i g_i · V a_i`` and ``‖G‖² = Σ_ij (g_i · g_j)(a_i · a_j)`` over the positions of a segment
        (Goodfellow, 2015, arXiv 1510.01799, for single positions).

        :param gradients, inputs: [N, out] and [N, in], of the whole stream. :param dev: [out, in] V.
        """
        g, a = gradients[self.positions], inputs[self.positions]
        at_positions = ((a @ dev.t()) * g).sum(1)
        dots = (at_positions[self.padded] * self.real).sum(1)
        own_g, own_a = g[self.padded] * self.real[..., None], a[self.padded]
        norms = ((own_g @ own_g.mT) * (own_a @ own_a.mT)).sum((1, 2))
        return torch.stack([dots, norms]), g.t() @ a


@attrs.define(eq=False)
class Tape:
    """What the layers of one pass write down.

    :param spans: the positions of each segment.
    :param dev_gradient: V by parameter name.
    :param dots, squared_norms: [S] float64 sums over the parameters seen so far, of the weighted gradients.
    :param owner: [N] the segment of each position.
    :param position_dots: [N], or None where nobody asked for examples.
    :param uses: how often each parameter's gradient was formed.
    """

    spans: list[tuple[int, int]]
    tokens: int
    dev_gradient: Mapping[str, Tensor]
    dots: Tensor
    squared_norms: Tensor
    owner: Tensor
    position_dots: Tensor | None
    uses: Counter[str]
    _buffers: dict[tuple[int, ...], Tensor] = attrs.field(factory=dict)
    _parted: dict[tuple[int, ...], tuple[ShortSegments | None, list[int]]] = attrs.field(
        factory=dict
    )

    @classmethod
    def of(
        cls,
        batch: FusedBatch,
        body: Mapping[str, nn.Parameter],
        dev_gradient: Mapping[str, Tensor],
        *,
        examples: bool,
    ) -> Tape:
        """An empty tape for one batch."""
        parameter = next(iter(body.values()))
        device, wide = parameter.device, _wide(parameter.dtype)
        spans = [(s.start, s.stop) for s in batch.segments]
        lengths = torch.tensor([stop - start for start, stop in spans])
        return cls(
            spans=spans,
            tokens=batch.tokens,
            dev_gradient=dev_gradient,
            dots=torch.zeros(len(spans), dtype=torch.float64, device=device),
            squared_norms=torch.zeros(len(spans), dtype=torch.float64, device=device),
            owner=torch.repeat_interleave(torch.arange(len(spans)), lengths).to(device),
            position_dots=torch.zeros(batch.tokens, dtype=wide, device=device)
            if examples
            else None,
            uses=Counter(),
        )

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """One reused tensor per shape for a segment's gradient."""
        if shape not in self._buffers:
            self._buffers[shape] = torch.empty(shape, dtype=dtype, device=device)
        return self._buffers[shape]

    def parted(self, shape: tuple[int, int]) -> tuple[ShortSegments | None, list[int]]:
        """The segments that are short for a weight of this shape, and the numbers of the others; layers share them."""
        if shape not in self._parted:
            short = [s for s, (a, b) in enumerate(self.spans) if is_short(b - a, shape)]
            found = ShortSegments.of(self.spans, short, self.owner.device) if short else None
            self._parted[shape] = found, [s for s in range(len(self.spans)) if s not in short]
        return self._parted[shape]

    def record(self, name: str, dots: Tensor, squared_norms: Tensor) -> None:
        """Add one parameter's products ([S] each)."""
        self.uses[name] += 1
        self.dots += dots
        self.squared_norms += squared_norms

    def record_vector(self, name: str, values: Tensor) -> Tensor:
        """For a parameter [D] whose gradient is a sum over positions of values [N, D]. Returns that sum."""
        dev = self.dev_gradient[name].to(values.dtype)
        sums = values.new_zeros(len(self.spans), values.shape[1]).index_add_(0, self.owner, values)
        self.record(name, sums @ dev, sums.square().sum(1))
        if self.position_dots is not None:
            self.position_dots += values @ dev
        return sums.sum(0)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _flat(tensor: Tensor) -> Tensor:
    """[N, D] in fp32 or wider."""
    flat = tensor.reshape(-1, tensor.shape[-1])
    return flat.to(_wide(flat.dtype))


def matrix_gradient(tape: Tape, name: str, gradients: Tensor, inputs: Tensor) -> Tensor:
    """``Σ_k c_k G_k`` [out, in] from g [N, out] and a [N, in].

    Each ``c_k G_k`` passes through one buffer, except those of short segments, which are never formed.
    """
    shape = (gradients.shape[1], inputs.shape[1])
    dev = tape.dev_gradient[name].to(gradients.dtype)
    flat_dev = dev.reshape(-1)
    buffer = tape.buffer(shape, gradients.dtype, gradients.device)
    products = torch.zeros(2, len(tape.spans), dtype=gradients.dtype, device=gradients.device)
    short, others = tape.parted(shape)
    if short is not None:
        products[:, short.numbers], total = short.products(gradients, inputs, dev)
    else:
        total = torch.zeros(shape, dtype=gradients.dtype, device=gradients.device)
    for s in others:
        start, stop = tape.spans[s]
        torch.mm(gradients[start:stop].t(), inputs[start:stop], out=buffer)
        flat = buffer.view(-1)
        torch.dot(flat, flat_dev, out=products[0, s])
        torch.dot(flat, flat, out=products[1, s])
        total += buffer
    tape.record(name, products[0], products[1])
    if tape.position_dots is not None:
        tape.position_dots += ((inputs @ dev.t()) * gradients).sum(1)
    return total


class _Linear(torch.autograd.Function):
    """``x Wᵀ + b`` with x [..., in] holding exactly the N positions."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tape: Tape, name: str
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.tape, ctx.name = tape, name
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, weight = ctx.saved_tensors
        grad_x = grad @ weight.to(grad.dtype) if ctx.needs_input_grad[0] else None
        flat = _flat(grad)
        grad_weight = grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_weight = matrix_gradient(ctx.tape, f"{ctx.name}.weight", flat, _flat(x))
            grad_weight = grad_weight.to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = ctx.tape.record_vector(f"{ctx.name}.bias", flat).to(weight.dtype)
        return grad_x, grad_weight, grad_bias, None, None


class _LayerNorm(torch.autograd.Function):
    """Layer normalisation over the last dimension of x [..., D]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, tape: Tape, name: str
    ) -> Tensor:
        out, mean, rstd = torch.native_layer_norm(x, [x.shape[-1]], weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        ctx.tape, ctx.name = tape, name
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, mean, rstd, weight, bias = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.ops.aten.native_layer_norm_backward(
            grad, x, [x.shape[-1]], mean, rstd, weight, bias, [True, False, False]
        )[0]
        flat = _flat(grad)
        grad_weight = grad_bias = None
        if ctx.needs_input_grad[1]:
            normal = _flat((x - mean) * rstd)
            grad_weight = ctx.tape.record_vector(f"{ctx.name}.weight", flat * normal)
        if ctx.needs_input_grad[2]:
            grad_bias = ctx.tape.record_vector(f"{ctx.name}.bias", flat)
        return grad_x, grad_weight, grad_bias, None, None, None


class _Embedding(torch.autograd.Function):
    """Rows of a table's weight [V, D] by ids [...] holding exactly the N positions."""

    @staticmethod
    def forward(
        ctx: Any, ids: Tensor, weight: Tensor, table: nn.Embedding, tape: Tape, name: str
    ) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.padding, ctx.tape, ctx.name = table.padding_idx, tape, name
        ctx.sparse, ctx.dtype, ctx.size = table.sparse, weight.dtype, len(weight)
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        (ids,) = ctx.saved_tensors
        flat, ids = _flat(grad), ids.reshape(-1)
        if ctx.padding is not None:
            flat = flat * (ids != ctx.padding)[:, None]
        ids, rows = embedding_gradient(ctx.tape, f"{ctx.name}.weight", flat, ids, ctx.size)
        if ctx.sparse:
            total = of_rows(ids, rows, ctx.size)
        else:
            total = rows.new_zeros(ctx.size, rows.shape[1]).index_add_(0, ids, rows)
        return None, total.to(ctx.dtype), None, None, None


def embedding_gradient(
    tape: Tape, name: str, gradients: Tensor, ids: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """``Σ_k c_k G_k`` of a table with V = `size` rows, from g [N, D]: ids [R], which may repeat, and their rows [R, D].

    A segment's rows of one id are summed before its norm is taken.
    """
    dev = tape.dev_gradient[name].to(gradients.dtype)
    pairs, inverse = torch.unique(tape.owner * size + ids, return_inverse=True)
    sums = gradients.new_zeros(len(pairs), gradients.shape[1]).index_add_(0, inverse, gradients)
    owner, row = pairs // size, pairs % size
    products = torch.stack([(sums * rows_at(dev, row)).sum(1), sums.square().sum(1)])
    tape.record(name, *products.new_zeros(2, len(tape.spans)).index_add_(1, owner, products))
    if tape.position_dots is not None:
        tape.position_dots += (gradients * rows_at(dev, ids)).sum(1)
    return row, sums


def tracked_forward(module: nn.Module, name: str, tape: Tape) -> Callable[[Tensor], Tensor] | None:
    """A replacement for ``module.forward`` that writes on `tape`; None for kinds of layers that have none."""
    if isinstance(module, nn.Linear):
        linear = module

        def run_linear(x: Tensor) -> Tensor:
            _check(name, x.shape[:-1].numel(), tape)
            return _Linear.apply(_cast(x), linear.weight, linear.bias, tape, name)  # type: ignore[no-any-return, no-untyped-call]

        return run_linear
    if (
        isinstance(module, nn.LayerNorm)
        and module.weight is not None
        and len(module.normalized_shape) == 1
    ):
        norm = module

        def run_norm(x: Tensor) -> Tensor:
            _check(name, x.shape[:-1].numel(), tape)
            x = x.to(norm.weight.dtype)
            return _LayerNorm.apply(x, norm.weight, norm.bias, norm.eps, tape, name)  # type: ignore[no-any-return, no-untyped-call]

        return run_norm
    if isinstance(module, nn.Embedding) and module.max_norm is None:
        table = module

        def run_embedding(ids: Tensor) -> Tensor:
            _check(name, ids.numel(), tape)
            return _Embedding.apply(ids, table.weight, table, tape, name)  # type: ignore[no-any-return, no-untyped-call]

        return run_embedding
    return None


def _check(name: str, positions: int, tape: Tape) -> None:
    if positions != tape.tokens:
        raise FusedUnsupportedError(
            f"{name} sees {positions} positions where the stream has {tape.tokens}"
        )


def _cast(x: Tensor) -> Tensor:
    """What autocast would do to a matrix product's input, which a custom function has to do itself."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
