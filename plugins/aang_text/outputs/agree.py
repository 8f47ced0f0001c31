"""Stage 4, ``agree``: give a changed text the class that a slow teacher gives the unchanged text. C classes, M targets.

The teacher is the running mean of the model; the loss is the cross-entropy from its answer, through the end-task's own
head. With the options the literature's methods follow: consistency training with sharpened answers (UDA, Xie et al.,
NeurIPS 2020), a mean teacher (Tarvainen and Valpola, NeurIPS 2017), distribution alignment (ReMixMatch, Berthelot et
al., ICLR 2020), and the gates of FixMatch (Sohn et al., NeurIPS 2020), AdaMatch (Berthelot et al., ICLR 2022) and
SoftMatch (Chen et al., ICLR 2023).

On labelled rows agreement rewards collapse, so the record conflicts with ``data:labels``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.parts import backbone_of
from aang_core.batch.protocols import Binding, Teaching
from aang_core.batch.rows import SINGLE, Hidden, Packed, Targets
from aang_core.data.task import Task

GATES = ("none", "fixed", "relative", "soft")
_NARROW = 2.0  # SoftMatch's n_sigma: how many standard deviations below the mean still count
_LEAST = 1e-6


def faults(options: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with values of ``[primitives.agree]``."""
    if not options["temperature"] > 0:
        yield f"`temperature` must be over 0 (got {options['temperature']!r})"
    if options["gate"] not in GATES:
        yield f"`gate` must be one of {', '.join(GATES)} (got {options['gate']!r})"
    if not 0 < options["threshold"] <= 1:
        yield f"`threshold` must be over 0 and at most 1 (got {options['threshold']!r})"
    if not 0 <= options["memory_decay"] < 1:
        yield f"`memory_decay` must be at least 0 and under 1 (got {options['memory_decay']!r})"
    ramp = list(options["ramp"])
    if len(ramp) != 2 or not 0 <= ramp[0] <= ramp[1] <= 1:
        yield f"`ramp` must be two shares of the steps, such as [0.15, 0.4] (got {ramp!r})"


class Agree:
    """Cross-entropy [M] from the teacher's answer, sharpened, aligned, gated and ramped up.

    Options: ``temperature`` T of the sharpening, ``p^(1/T)``; ``align`` whether answers are scaled by the labelled
    class shares over the running mean of the answers; ``gate`` with ``threshold``: ``none``, ``fixed`` (the surest
    answers, FixMatch), ``relative`` (to the teacher's mean confidence on the step's labelled rows, AdaMatch) or
    ``soft`` (a Gaussian of the confidence, SoftMatch); ``memory_decay`` of the running means; ``ramp``: the shares of
    the steps between which the weight of the loss rises from 0 to 1.

    We differ from FixMatch and its kin in that the teacher is the slow copy, not the model of this step.
    """

    layout = SINGLE
    min_rows = 1
    row_multiple = 1
    pointwise = True
    trains_end_task_head = True
    asks_teacher = True

    def __init__(self, binding: Binding) -> None:
        self.task, self.options = binding.task, binding.options
        self.backbone = backbone_of(binding, "agree")
        self.asks_labelled = binding.options["gate"] == "relative"
        self.shares = class_shares(binding.task)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, for people who look at targets."""
        return self.task.label_names

    def targets(self, packed: Packed) -> Targets:
        """One a row; what to say is the teacher's to fill in ([M, C], uniform until then)."""
        rows = torch.arange(len(packed.lengths))
        uniform = torch.full((len(rows), len(self.shares)), 1 / len(self.shares))
        return Targets(index=rows, value=uniform, level="row")

    def taught(self, targets: Targets, teaching: Teaching) -> tuple[Targets, Mapping[str, Tensor]]:
        """The targets with the teacher's answers as `value` [M, C] and the gate times the ramp as `weight` [M]."""
        said = teaching.answers.softmax(-1)
        memory = self._remembered(said, teaching.memory)
        if self.options["align"]:
            said = said * self.shares.to(said) / memory["answers"].to(said).clamp(min=_LEAST)
            said = said / said.sum(-1, keepdim=True)
        weight = self._gate(said.amax(-1), teaching, memory) * self._ramp(teaching.elapsed)
        sharp = said.pow(1 / self.options["temperature"])
        sharp = sharp / sharp.sum(-1, keepdim=True)
        rows = targets.index.to(sharp.device)
        return attrs.evolve(targets, value=sharp[rows], weight=weight[rows]), memory

    def memory(self) -> Mapping[str, Tensor]:
        """Running means: of the answers [C], of their confidence, and its variance (SoftMatch's first values)."""
        classes = len(self.shares)
        return {
            "answers": self.shares.clone(),
            "confidence": torch.tensor(1 / classes),
            "variance": torch.tensor(1.0),
        }

    def _remembered(self, said: Tensor, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
        confidence = said.amax(-1)
        new = {
            "answers": said.mean(0),
            "confidence": confidence.mean(),
            "variance": confidence.var(correction=0),
        }
        decay = self.options["memory_decay"]
        return {n: decay * memory[n] + (1 - decay) * new[n].to(memory[n]) for n in memory}

    def _gate(self, confidence: Tensor, teaching: Teaching, memory: Mapping[str, Tensor]) -> Tensor:
        """[B] from the confidences [B]."""
        gate, threshold = str(self.options["gate"]), float(self.options["threshold"])
        if gate == "none":
            return torch.ones_like(confidence)
        if gate == "soft":
            below = (confidence - memory["confidence"].to(confidence)).clamp(max=0)
            variance = memory["variance"].to(confidence).clamp(min=_LEAST)
            return (below.square() * (-(_NARROW**2) / 2) / variance).exp()
        bound = torch.tensor(threshold).to(confidence)
        if gate == "relative" and teaching.labelled is not None:
            bound = bound * teaching.labelled.softmax(-1).amax(-1).mean()
        return (confidence >= bound).to(confidence)

    def _ramp(self, elapsed: float) -> float:
        begin, end = self.options["ramp"]
        if elapsed >= end:
            return 1.0
        return max(0.0, float((elapsed - begin) / (end - begin)))

    def head(self) -> nn.Module:
        """As the end-task's; the core gives `losses` the end-task's own."""
        head: nn.Module = self.backbone.end_task_head(self.task)
        return head

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] cross-entropies, in nats; the gate is the core's to apply, as every weight is."""
        logits = head(hidden, targets.index.to(hidden.states.device))
        losses: Tensor = -(targets.value.to(logits) * F.log_softmax(logits, -1)).sum(-1)
        return losses

    def state(self) -> Mapping[str, Tensor]:
        """The labelled class shares."""
        return {"shares": self.shares}


def class_shares(task: Task) -> Tensor:
    """[C] the shares of the classes among the labelled training rows, as if each class had one row more."""
    labels = torch.tensor(task.splits["train"]["label"][:])
    counts = torch.bincount(labels, minlength=len(task.label_names)).float() + 1
    return counts / counts.sum()
