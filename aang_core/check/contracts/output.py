"""Contract of the fourth stage: targets, heads and losses, with gradients in float64."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn

from aang_core.batch.checks import check_losses, check_targets
from aang_core.batch.protocols import (
    Binding,
    BoundOutput,
    Teaching,
    asks_teacher,
    first_memory,
    taught,
)
from aang_core.batch.rows import Hidden, Packed, Targets
from aang_core.check.contracts.expect import expect, expect_same, made, quiet, seeded, well_formed
from aang_core.check.contracts.tiny_data import source_of, tiny_packed
from aang_core.check.purity import frozen_copy
from aang_core.registry.records import Primitive

LAYOUTS = ("single", "pair", "neighbours", "two-views")
_STEP = 1e-6


def check_output(record: Primitive, binding: Binding) -> None:
    """Targets lie in the stream, losses are one per target and finite, their gradients are right.

    :param binding: with an encoder in float64 and a data source, as `tiny_binding` makes it.
    :raises AssertionError: where a contract is broken.
    """
    output: BoundOutput = made(record, binding)
    _check_facts(record, output)
    head = _head(record, output, binding)
    twin = _head(record, made(record, binding), binding)
    expect_same(
        record, dict(head.state_dict()), dict(twin.state_dict()), "expected equal initial heads"
    )
    tags: tuple[str, ...] = ("full",)
    if "representation:order" in record.requires:
        tags = ("causal", "anticausal", "order")
    for tag in tags:
        packed = _sample(output, binding, tag)
        targets = _check_targets(record, output, packed)
        if asks_teacher(output):
            targets = _check_taught(record, output, packed, targets, binding)
        _check_losses(record, output, head, packed, targets, binding)


def _head(record: Primitive, output: BoundOutput, binding: Binding) -> nn.Module:
    """The head that the core would give the output."""
    with quiet(record, "head"):
        if getattr(output, "trains_end_task_head", False) and binding.backbone is not None:
            return binding.backbone.end_task_head(binding.task).eval()
        return output.head().eval()


def _check_taught(
    record: Primitive, output: BoundOutput, packed: Packed, targets: Targets, binding: Binding
) -> Targets:
    """The targets after the answers of a teacher who says anything; the same question has the same answer."""
    rows, classes = len(packed.lengths), binding.task.num_outputs
    draw = seeded(8)
    teaching = Teaching(
        answers=3 * torch.randn(rows, classes, generator=draw, dtype=torch.float64),
        labelled=3 * torch.randn(rows, classes, generator=draw, dtype=torch.float64),
        labels=torch.randint(classes, (rows,), generator=draw),
        memory=first_memory(output),
        elapsed=1.0,
    )
    before = frozen_copy((targets, teaching))
    with quiet(record, "taught"), well_formed(record):
        new, memory = taught(output, targets, teaching)
        again, memory_again = taught(output, targets, teaching)
        check_targets(new, packed)
    expect_same(record, (targets, teaching), before, "expected taught to leave its input as it was")
    same = "expected the same targets and memory for the same answers"
    expect_same(record, (new, dict(memory)), (again, dict(memory_again)), same)
    return new


def _check_facts(record: Primitive, output: BoundOutput) -> None:
    expect(isinstance(output, BoundOutput), record, f"expected a BoundOutput, found {output!r}")
    kind = output.layout.kind
    expect(kind in LAYOUTS, record, f"expected a layout of {', '.join(LAYOUTS)}, found {kind!r}")
    sizes = (output.min_rows, output.row_multiple)
    expect(min(sizes) >= 1, record, f"expected min_rows and row_multiple from 1, found {sizes}")
    for name, value in output.state().items():
        expect(isinstance(value, Tensor), record, f"expected tensors as state, found {name!r}")


def _sample(output: BoundOutput, binding: Binding, tag: str) -> Packed:
    """Rows in the output's layout, a third of their positions selected and half of those shown as their neighbour."""
    rows = max(12, output.min_rows)
    rows += -rows % output.row_multiple
    packed = tiny_packed(source_of(binding), output.layout, rows)
    draw = torch.rand(len(packed.special), generator=seeded(5))
    selected = (draw < 1 / 3) & ~packed.special
    changed = (selected & (draw < 1 / 6)).nonzero().squeeze(1)
    order = torch.cat([torch.randperm(n, generator=seeded(n)) for n in packed.lengths.tolist()])
    return attrs.evolve(
        packed,
        inputs={
            name: value.index_copy(0, changed, value.roll(1, 0)[changed])
            for name, value in packed.inputs.items()
        },
        selected=selected,
        order=order if tag == "order" else None,
        tag=tag,
    )


def _check_targets(record: Primitive, output: BoundOutput, packed: Packed) -> Targets:
    before = frozen_copy(packed)
    with quiet(record, "targets"):
        targets, again = output.targets(packed), output.targets(packed)
    expect_same(record, packed, before, "expected the input to be left as it was")
    expect_same(record, targets, again, "expected the same targets for the same rows")
    with well_formed(record):
        check_targets(targets, packed)
    expect(len(targets) > 0, record, "expected targets for ordinary rows, found none")
    return targets


def _check_losses(
    record: Primitive,
    output: BoundOutput,
    head: nn.Module,
    packed: Packed,
    targets: Targets,
    binding: Binding,
) -> None:
    width = binding.backbone.hidden_size if binding.backbone else 0
    states = torch.randn(
        len(packed.special), width, generator=seeded(6), dtype=torch.float64, requires_grad=True
    )

    def losses(at: Tensor, of: Targets = targets) -> Tensor:
        with quiet(record, "losses"):
            return output.losses(head, Hidden(at, packed.offsets), of)

    found = losses(states)
    with well_formed(record):
        check_losses(found, targets)
    precise = found.dtype == states.dtype
    expect(precise, record, f"expected losses in float64, as the states are, found {found.dtype}")
    expect(bool(found.isfinite().all()), record, "expected finite losses")
    none = losses(states, _part(targets, slice(0)))
    expect(none.shape == (0,), record, f"expected no loss without targets, found {none.tolist()}")
    if output.pointwise:
        half = losses(states, _part(targets, slice(None, None, 2)))
        close = torch.allclose(half, found[::2], rtol=1e-10, atol=1e-12)
        expect(close, record, "expected each loss to depend on its own target, as `pointwise` says")
    _check_gradient(record, losses, states, found)


def _check_gradient(
    record: Primitive, losses: Callable[[Tensor], Tensor], states: Tensor, found: Tensor
) -> None:
    """Along random directions the derivative by autograd equals the one by central differences."""
    weights = torch.rand(len(found), generator=seeded(7), dtype=torch.float64) + 0.5
    (gradient,) = torch.autograd.grad((weights * found).sum(), states)
    expect(bool(gradient.abs().max() > 0), record, "expected gradients that reach the encoder")
    for seed in range(3):
        step = torch.randn(states.shape, generator=seeded(seed), dtype=torch.float64) * _STEP
        with torch.no_grad():
            rise = (weights * (losses(states + step) - losses(states - step))).sum() / 2
        close = torch.allclose(rise, (gradient * step).sum(), rtol=1e-5, atol=1e-5 * _STEP)
        expect(close, record, "expected gradients that agree with differences of the losses")


def _part(targets: Targets, which: slice) -> Targets:
    return attrs.evolve(
        targets,
        index=targets.index[which],
        value=targets.value[which],
        extra={name: value[which] for name, value in targets.extra.items()},
        weight=None if targets.weight is None else targets.weight[which],
    )
