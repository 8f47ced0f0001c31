"""The losses that ``gradient`` takes gradients of: one for the target and one for each pool, around one encoder.

Number 0 is the target's, pool k has the number k + 1. Examples of a labelled task have that task's loss, lines of a
text file that of an objective without labels. B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs
import torch
from torch import Tensor, nn

from aang_core.batch.packing import Piece, fuse, pack, row_rules
from aang_core.batch.protocols import Binding, BoundOutput, BoundRepresentation, BoundTransform
from aang_core.batch.rows import Row
from aang_core.batch.stream import FULL, FusedBatch
from aang_core.data.task import Task
from aang_core.method.end_task import EndTask
from aang_core.method.gradient.engine import Engine
from aang_core.method.gradient.metagrad import Model
from aang_core.method.heads import ObjectiveHeads
from aang_core.randomness import evaluating, generator, seeded
from aang_core.registry.records import load_factory
from aang_core.selection.protocols import SelectionContext

TARGET = 0


@attrs.frozen(eq=False)
class Question:
    """What one pool's examples are asked; `transform` and `representation` only for texts without labels."""

    output: BoundOutput
    transform: BoundTransform | None = None
    representation: BoundRepresentation | None = None


class PoolHeads(ObjectiveHeads):
    """A head for the target and for each pool.

    :param makers: what messages call each of them.
    """

    def __init__(self, outputs: Sequence[BoundOutput], makers: Sequence[str]) -> None:
        nn.Module.__init__(self)
        self.outputs, self.makers = list(outputs), list(makers)
        self.names = [str(k) for k in range(len(outputs))]
        self.kinds = list(range(len(outputs)))  # no two share a head
        self.heads = nn.ModuleDict(
            {name: output.head() for name, output in zip(self.names, outputs, strict=True)}
        )


class PoolLosses:
    """The encoder with a head for each loss, and the engine that takes their gradients.

    :param objective: the names of transform, representation and output for texts without labels.
    """

    def __init__(self, context: SelectionContext, objective: Sequence[str]) -> None:
        self.context = context
        tasks = [context.target, *(pool.task for pool in context.pools)]
        self.questions = [
            self._unlabelled(objective) if task is None else Question(self._end_task(task))
            for task in tasks
        ]
        makers = ["the target's loss", *(f"the loss of {pool.name}" for pool in context.pools)]
        with seeded(context.seed, "selection-heads", device=torch.device("cpu")):
            heads = PoolHeads([asked.output for asked in self.questions], makers).to(context.device)
        self.model = Model(context.backbone, heads)
        kind = "fused" if context.backbone.packed else "looped"
        self.engine = Engine(self.model, kind, 0, context.precision)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without dropout inside the block."""
        with evaluating(self.model.backbone.body), evaluating(self.model.heads):
            yield

    def piece(self, number: int, rows: Sequence[Row]) -> Piece:
        """Rows with what they are asked. Corruption follows from the seed and the first row."""
        asked = self.questions[number]
        if asked.transform is None or asked.representation is None:
            packed = pack(rows)
            return Piece(packed, (FULL,) * len(rows), asked.output.targets(packed))
        random = generator(self.context.seed, "selection-mask", number, rows[0].origin.document)
        packed = asked.transform.apply(pack(rows), random)
        packed, rules = row_rules(asked.representation, packed, random)
        return Piece(packed, rules, asked.output.targets(packed))

    def batch(self, number: int, piece: Piece) -> FusedBatch:
        """One loss's rows as a whole step, where the encoder lives."""
        return fuse([(number, piece)]).to(self.engine.device)

    def mean(self, batch: FusedBatch, frozen_encoder: bool = False) -> Tensor:
        """[] the mean loss of a batch. :param frozen_encoder: whether no gradient reaches the encoder."""
        with self.engine.autocast():
            with torch.set_grad_enabled(not frozen_encoder):
                hidden = self.model.backbone.encode(batch)
            return self.model.heads.losses(hidden, batch)[0]

    def forget(self) -> None:
        """Drop the gradients that an engine has left: nothing is trained by them."""
        for parameter in (*self.model.backbone.body.parameters(), *self.model.heads.parameters()):
            parameter.grad = None

    def _end_task(self, task: Task) -> EndTask:
        return EndTask(Binding(task=task, backbone=self.context.backbone, options={}))

    def _unlabelled(self, objective: Sequence[str]) -> Question:
        """A transform, a representation and an output, bound without a source."""
        context = self.context
        bound = []
        for name in objective:
            record = context.registry.primitive(name)
            binding = Binding(
                task=context.target,
                backbone=context.backbone,
                options=record.options,
                seed=context.seed,
                remark=context.remark,
            )
            bound.append(load_factory(record.factory)(binding))
        transform, representation, output = bound
        return Question(output, transform, representation)


def targets_of_rows(piece: Piece) -> Tensor:
    """[B] how many targets each row has."""
    index = piece.targets.index
    first = index if index.ndim == 1 else index[:, 0]
    owner = first if piece.targets.level == "row" else piece.packed.row_of[first]
    return torch.bincount(owner, minlength=len(piece.packed.lengths))
