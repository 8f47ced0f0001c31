"""Step 7 of 9. In: Hidden. Out: one mean loss per objective.

Only this module sums losses and divides them: each by its number of targets in the whole step.
Objectives that share a head and a kind of output are computed in one call, and heads that share a decoder in one
product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.checks import check_losses, errors_of, expect
from aang_core.batch.packing import BoundObjective
from aang_core.batch.protocols import BoundOutput
from aang_core.batch.rows import Hidden, Targets
from aang_core.batch.stream import FusedBatch, Segment


class ObjectiveHeads(nn.Module):
    """The end-task's head and those of the auxiliary objectives.

    Objective 0 is the end-task. ``per-output`` gives all objectives with the same output one head
    (and the auxiliary ``end-task`` objectives the end-task's own); ``per-objective`` gives each its own, as
    the paper does. An output with ``trains_end_task_head`` is given the end-task's under either policy.
    """

    def __init__(
        self, end_task: BoundOutput, objectives: Sequence[BoundObjective], policy: str
    ) -> None:
        super().__init__()
        self.outputs: list[BoundOutput] = [end_task, *(o.output for o in objectives)]
        self.names, self.makers = ["end-task"], ["the end-task"]
        modules = {"end-task": _made(end_task, "the end-task")}
        for objective in objectives:
            output_name = getattr(objective.output, "head_name", objective.id.rsplit("/", 1)[-1])
            name = objective.id if policy == "per-objective" else output_name
            if getattr(objective.output, "trains_end_task_head", False):
                name = "end-task"
            if name not in modules:
                modules[name] = _made(objective.output, objective.who("output"))
            self.names.append(name)
            self.makers.append(objective.who("output"))
        self.heads = nn.ModuleDict({_key(name): module for name, module in modules.items()})
        primitives = ["end-task", *(o.id.rsplit("/", 1)[-1] for o in objectives)]
        self.kinds = _kinds(self.outputs, primitives, self.makers)

    @property
    def pretrained(self) -> frozenset[str]:
        """The parameters that a checkpoint brought, by the names that `named_parameters` gives them."""
        return frozenset(_pretrained(self))

    def head(self, objective: int) -> nn.Module:
        """The head of an objective (0: the end-task)."""
        return self.heads[_key(self.names[objective])]

    def losses(self, hidden: Hidden, batch: FusedBatch) -> Tensor:
        """[S] mean losses, one per segment of `batch`; 0 where a segment has no target."""
        sums = hidden.states.new_zeros(len(batch.segments))
        for members in self._groups(batch):
            owner, values = self._values(hidden, batch, members)
            values = _weighted(values, [batch.targets[i] for i in members])
            sums = sums.index_add(0, owner.to(sums.device), values.to(sums.dtype))
        counts = torch.tensor([max(s.count, 1) for s in batch.segments], dtype=sums.dtype)
        return sums / counts.to(sums.device)

    def _groups(self, batch: FusedBatch) -> list[list[int]]:
        """Segments that one call can compute: those that share a decoder, or a head and a kind of pointwise output."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, segment in enumerate(batch.segments):
            if len(batch.targets[i]) == 0:
                continue
            output, head = self.outputs[segment.objective], self.head(segment.objective)
            key: tuple[object, ...]
            if isinstance(output, SharedDecoderOutput):
                key = ("decoder", id(head.decoder_weight))
            elif output.pointwise:
                targets = batch.targets[i]
                form = (targets.level, frozenset(targets.extra))
                key = ("head", id(head), self.kinds[segment.objective], form)
            else:
                key = ("alone", i)
            groups.setdefault(key, []).append(i)
        return list(groups.values())

    def _values(
        self, hidden: Hidden, batch: FusedBatch, members: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The segment of each target, and its loss: two tensors [M]."""
        targets = [_in_stream(batch.targets[i], batch.segments[i]) for i in members]
        sizes = torch.tensor([len(t) for t in targets])
        owner = torch.repeat_interleave(torch.tensor(members), sizes)
        chosen = [batch.segments[i].objective for i in members]
        output = self.outputs[chosen[0]]
        with errors_of(self.makers[chosen[0]], "losses"):
            if isinstance(output, SharedDecoderOutput):
                return owner, self._decoded(hidden, chosen, targets)
            joined = _joined(targets)
            values = output.losses(self.head(chosen[0]), hidden, joined)
            check_losses(values, joined)
        return owner, values

    def _decoded(
        self, hidden: Hidden, objectives: Sequence[int], targets: Sequence[Targets]
    ) -> Tensor:
        """[M] losses of several heads over one vocabulary: each its own features, one product for all."""
        outputs = [cast(SharedDecoderOutput, self.outputs[k]) for k in objectives]
        heads = [cast(DecoderHead, self.head(k)) for k in objectives]
        parts = zip(outputs, heads, targets, strict=True)
        features = [output.features(head, hidden, t) for output, head, t in parts]
        logits = F.linear(torch.cat(features), heads[0].decoder_weight)
        pieces = logits.split([len(t) for t in targets])
        parts_scored = zip(outputs, heads, pieces, targets, strict=True)
        return torch.cat([o.score(piece + h.bias, t) for o, h, piece, t in parts_scored])


class DecoderHead(Protocol):
    """A head over a vocabulary. `decoder_weight` [V, E] may be the encoder's own embedding matrix."""

    decoder_weight: Tensor
    bias: Tensor


@runtime_checkable
class SharedDecoderOutput(Protocol):
    """An output whose last step is a product with ``head.decoder_weight``, which several heads may share."""

    def features(self, head: Any, hidden: Hidden, targets: Targets) -> Tensor:
        """[M, E], what is multiplied with the decoder's weight."""

    def score(self, logits: Tensor, targets: Targets) -> Tensor:
        """[M] losses from logits [M, V]."""


def _pretrained(head: nn.Module) -> Iterator[str]:
    """What the modules in a head say of themselves in `pretrained_names` (`BoundOutput.head`)."""
    for place, module in head.named_modules():
        for name in getattr(module, "pretrained_names", ()):
            yield f"{place}.{name}" if place else name


def _made(output: BoundOutput, maker: str) -> nn.Module:
    """A new head of an output.

    :raises PluginError: where it calls parameters pretrained that it has not.
    """
    with errors_of(maker, "head"):
        head = output.head()
        known = {name for name, _ in head.named_parameters(remove_duplicate=False)}
        odd = sorted(set(_pretrained(head)) - known)
        expect(not odd, f"expected names of its parameters in `pretrained_names`, found {odd}")
    return head


def _kinds(
    outputs: Sequence[BoundOutput], primitives: Sequence[str], makers: Sequence[str]
) -> list[int]:
    """For each output the number of the first one that computes the same losses.

    Outputs are bound once for each data source. Those of one primitive differ in nothing but what they fitted on it.
    """
    seen: list[tuple[str, type, Mapping[str, Tensor]]] = []
    kinds: list[int] = []
    for k, output in enumerate(outputs):
        with errors_of(makers[k], "state"):
            state = output.state()
        alike = (
            j
            for j, (name, kind, other) in enumerate(seen)
            if name == primitives[k] and kind is type(output) and _equal(state, other)
        )
        kinds.append(next(alike, k))
        seen.append((primitives[k], type(output), state))
    return kinds


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def _key(name: str) -> str:
    """A module name: dots would split it."""
    return name.replace(".", "·")


def _in_stream(targets: Targets, segment: Segment) -> Targets:
    return targets.shifted(segment.row_start if targets.level == "row" else segment.start)


def _weighted(values: Tensor, targets: Sequence[Targets]) -> Tensor:
    """[M] losses times the weights of their targets."""
    if all(t.weight is None for t in targets):
        return values
    weights = [values.new_ones(len(t)) if t.weight is None else t.weight for t in targets]
    return values * torch.cat([w.to(values) for w in weights])


def _joined(targets: Sequence[Targets]) -> Targets:
    if len(targets) == 1:
        return targets[0]
    names = targets[0].extra
    return Targets(
        index=torch.cat([t.index for t in targets]),
        value=torch.cat([t.value for t in targets]),
        level=targets[0].level,
        extra={name: torch.cat([t.extra[name] for t in targets]) for name in names},
    )
