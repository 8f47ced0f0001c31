"""Between steps 5 and 6, for outputs that use a teacher. In: a FusedBatch. Out: the same with the teacher's answers.

The teacher is the slow copy of the model (`slow_copy`): it answers the end-task's question about each row as it was
before the transform, so an objective can train the model to give the same answer for a changed text (UDA, Xie et al.,
2020; mean teacher, Tarvainen and Valpola, 2017; FixMatch, Sohn et al., 2020). That costs one forward pass over these
rows: packed like all others, without gradients, dropout off. What an output does with the answers, and what it
remembers from step to step, is its own pure function (`BoundOutput.taught`); the memory is kept here, and saved in
checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from aang_core.batch.checks import errors_of
from aang_core.batch.packing import BoundObjective, plain_batch
from aang_core.batch.protocols import Teaching, asks_teacher, first_memory, taught
from aang_core.batch.rows import Hidden, Row, Targets
from aang_core.batch.stream import FusedBatch
from aang_core.data.task import Task
from aang_core.method.end_task import label_tensor
from aang_core.method.gradient.metagrad import Model
from aang_core.method.precision import autocast
from aang_core.method.slow_copy import SlowCopy
from aang_core.processes import Processes
from aang_core.randomness import evaluating

Memory = Mapping[str, Tensor]


@attrs.frozen(eq=False)
class Lesson:
    """What a teacher has said in one step.

    :param batch: the stream with its targets as the outputs want them.
    :param memories: by objective, what its output remembers from now on.
    :param tokens: positions that the teacher read.
    """

    batch: FusedBatch
    memories: Mapping[int, Memory] = attrs.field(factory=dict)
    tokens: int = 0


class Teacher:
    """The slow copy, asked by the outputs of some objectives.

    :param task: the end-task.
    :param objectives: all of the run; number 1 + k is ``objectives[k]``.
    :ivar memories: by number of the objective that asks, what its output remembers.
    """

    def __init__(
        self, model: Model, task: Task, slow: SlowCopy, objectives: Sequence[BoundObjective]
    ) -> None:
        self.model, self.task, self.slow, self.objectives = model, task, slow, objectives
        self.device = next(model.backbone.body.parameters()).device
        self.memories: dict[int, Memory] = {}
        for number, objective in enumerate(objectives, 1):
            if asks(objective):
                with errors_of(objective.who("output"), "memory"):
                    self.memories[number] = self._placed(first_memory(objective.output))

    def asks_labelled(self, numbers: Sequence[int]) -> bool:
        """Whether an objective of a step wants the answers to its labelled rows too."""
        outputs = [self.objectives[n - 1].output for n in numbers if n > 0]
        return any(getattr(output, "asks_labelled", False) for output in outputs)

    def teach(self, batch: FusedBatch, elapsed: float, labelled: Sequence[Row] = ()) -> Lesson:
        """Answer what the outputs of a batch ask; nothing of the teacher changes.

        :param batch: on the model's device.
        :param labelled: the step's labelled rows, where `asks_labelled`.
        :raises PluginError: where an output fails or breaks its contract.
        """
        asking = [i for i, rows in enumerate(batch.asked) if rows is not None]
        if not asking:
            return Lesson(batch)
        read = [rows for rows in batch.asked if rows is not None]
        known = self._labelled(labelled)
        answers = self._answers([*read, *([known[0]] if known else [])])
        facts: dict[str, Any] = {"elapsed": elapsed}
        if known:
            facts |= {"labelled": answers[-1], "labels": known[1]}
        targets, memories = list(batch.targets), {}
        for i, answer in zip(asking, answers, strict=False):
            number = batch.segments[i].objective
            teaching = Teaching(answers=answer, memory=self.memories.get(number, {}), **facts)
            targets[i], memories[number] = self._taught(number, targets[i], teaching)
        tokens = sum(rows.tokens for rows in read) + (known[0].tokens if known else 0)
        return Lesson(attrs.evolve(batch, targets=tuple(targets), asked=()), memories, tokens)

    def remember(
        self, memories: Mapping[int, Memory], numbers: Sequence[int], group: Processes
    ) -> None:
        """Keep what the outputs of a step remember, the same on every process.

        :param memories: of the objectives that this process has taken.
        :param numbers: all losses of the step.
        """
        for number in numbers:
            if number not in self.memories:
                continue
            mine = memories.get(number)
            self.memories[number] = {
                name: group.sum(torch.zeros_like(old) if mine is None else mine[name].clone())
                for name, old in self.memories[number].items()
            }

    def _labelled(self, rows: Sequence[Row]) -> tuple[FusedBatch, Tensor] | None:
        if not rows:
            return None
        labels = label_tensor(self.task, [row.label for row in rows]).to(self.device)
        return plain_batch(rows).to(self.device), labels

    def _answers(self, batches: Sequence[FusedBatch]) -> list[Tensor]:
        """Each batch's logits, from one pass over all of them."""
        stream = _joined(batches)
        by_position = self.task.kind == "token"
        sizes = [b.tokens if by_position else len(b.lengths) for b in batches]
        places = torch.arange(sum(sizes), device=self.device)
        _, logits = slow_answers(self.model, self.slow, stream, places)
        return list(logits.float().split(sizes))

    def _taught(self, number: int, targets: Targets, teaching: Teaching) -> tuple[Targets, Memory]:
        objective = self.objectives[number - 1]
        with errors_of(objective.who("output"), f"taught for {objective.id}"):
            new, memory = taught(objective.output, targets, teaching)
        return new, self._placed(memory)

    def _placed(self, memory: Memory) -> Memory:
        return {name: value.detach().to(self.device) for name, value in memory.items()}


def slow_answers(
    model: Model, slow: SlowCopy, stream: FusedBatch, places: Tensor
) -> tuple[Hidden, Tensor]:
    """The states of the slow copy for a plain stream, and its end-task logits [len(places), C]; no gradients.

    The pass runs in the slow copy's precision: bf16 costs little more than half of fp32 where a processor has units for
    it, and moves probabilities a little.

    :param places: rows of the stream; positions for token tasks.
    """
    body, head = model.backbone.body, model.heads.head(0)
    precision = autocast(places.device, slow.precision)
    with slow.in_place(), evaluating(body), evaluating(head), torch.no_grad(), precision:
        hidden = model.backbone.encode(stream)
        logits: Tensor = head(hidden, places)
    return hidden, logits


def asks(objective: BoundObjective) -> bool:
    """Whether an objective's output asks the teacher."""
    return asks_teacher(objective.output)


def _joined(batches: Sequence[FusedBatch]) -> FusedBatch:
    """Plain batches end to end."""
    lengths = [length for batch in batches for length in batch.lengths]
    return FusedBatch(
        inputs={n: torch.cat([b.inputs[n] for b in batches]) for n in batches[0].inputs},
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        rules=tuple(rule for batch in batches for rule in batch.rules),
    )
