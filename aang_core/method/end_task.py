"""The end-task's own loss, the order in which its labelled rows come, and its predictions.

The same output serves the end-task itself and every auxiliary objective with the output ``end-task``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.protocols import Binding
from aang_core.batch.rows import IGNORED, Hidden, Layout, Packed, Row, Targets
from aang_core.data.task import Task
from aang_core.randomness import generator


class EndTask:
    """Cross-entropy for classes and tokens, squared error for regression, binary cross-entropy for multilabel.

    The head is the one of the exported model for that architecture (the paper's is a two-layer MLP on [CLS]
    with dropout 0.3: ours is what `transformers` gives the family, so that the export is exact).

    Option ``class_weights``: ``none``, or ``balanced`` (inverse class frequency in train, mean 1 over its rows).
    """

    layout = Layout(relation="label")
    min_rows = 1
    row_multiple = 1
    pointwise = True

    def __init__(self, binding: Binding) -> None:
        self.task = binding.task
        assert binding.backbone is not None  # only data sources are bound without one
        self.backbone = binding.backbone
        balanced = binding.options.get("class_weights", "none") == "balanced"
        self.class_weights = class_weights(binding.task) if balanced else None

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, for people who look at targets."""
        return self.task.label_names

    def targets(self, packed: Packed) -> Targets:
        """Those of `label_targets`."""
        return label_targets(self.task, packed)

    def head(self) -> nn.Module:
        """A new head in its initial state."""
        return self.backbone.end_task_head(self.task)

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] losses; the head gives [M, C] logits for the rows (or positions) in ``targets.index``."""
        logits = head(hidden, targets.index)
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        return end_task_losses(self.task.kind, logits, targets.value, weights)

    def state(self) -> Mapping[str, Tensor]:
        """The class weights, where there are any."""
        return {} if self.class_weights is None else {"class_weights": self.class_weights}


def label_targets(task: Task, packed: Packed) -> Targets:
    """A task's labels: one target per row (index counts rows), or per labelled position for token tasks."""
    if task.kind == "token":
        labels = torch.cat([torch.as_tensor(label) for label in packed.labels])
        index = (labels != IGNORED).nonzero().squeeze(1)
        return Targets(index=index, value=labels[index], level="position")
    rows = torch.arange(len(packed.labels))
    return Targets(index=rows, value=label_tensor(task, packed.labels), level="row")


def label_tensor(task: Task, labels: Sequence[Any]) -> Tensor:
    """[B] long for classes, [B] for regression, [B, C] of 0 and 1 for multilabel."""
    if task.kind == "class":
        return torch.tensor([int(label) for label in labels])
    return torch.tensor(labels, dtype=torch.get_default_dtype())


def end_task_losses(
    kind: str, logits: Tensor, value: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """[M] from logits [M, C]; for multilabel the mean over the C labels of each row.

    :param class_weights: [C], or None for equal ones.
    """
    if kind == "regression":
        return (logits.squeeze(-1) - value.to(logits)).square()
    if kind == "multilabel":
        losses = F.binary_cross_entropy_with_logits(logits, value.to(logits), reduction="none")
        return (losses if class_weights is None else losses * class_weights).mean(-1)
    return F.cross_entropy(logits, value, weight=class_weights, reduction="none")


def class_weights(task: Task) -> Tensor | None:
    """[C] inverse frequencies in train, scaled so that their mean over train's labels is 1; None for regression."""
    if task.kind == "regression":
        return None
    column = task.splits["train"]["label"]
    if task.kind == "multilabel":
        counts = torch.tensor(list(column)).sum(0).double()
    else:
        flat = [torch.as_tensor(label).flatten() for label in column]
        labels = torch.cat(flat)
        counts = torch.bincount(labels[labels >= 0], minlength=len(task.label_names)).double()
    present = counts > 0
    inverse = torch.where(present, counts.sum() / counts.clamp(min=1), torch.zeros_like(counts))
    return (inverse / present.sum()).float()


class LabelledRows:
    """The labelled training rows in epochs: every one once in a random order, then anew.

    Row i of the sequence depends on the seed alone, so that every method sees the same order.

    :param balanced: draw every class equally often: of each C places, C being the classes that have rows, every class
        has one, in random order. A class's own rows come in epochs: each of them once, then anew.
    """

    def __init__(self, rows: Sequence[Row], seed: int, *, balanced: bool = False) -> None:
        self.rows = rows
        self.seed = seed
        self.classes: list[list[Row]] = []
        if balanced:
            by_class: dict[int, list[Row]] = {}
            for row in rows:
                by_class.setdefault(int(row.label), []).append(row)
            self.classes = [by_class[label] for label in sorted(by_class)]
        # of each class: its epoch, and the order in it
        self._orders: dict[int, tuple[int, list[int]]] = {}

    def take(self, start: int, count: int) -> list[Row]:
        """Rows `start` to ``start + count`` of the endless sequence."""
        if self.classes:
            return self._take_balanced(start, count)
        size = len(self.rows)
        taken: list[Row] = []
        while len(taken) < count:
            epoch, offset = divmod(start + len(taken), size)
            order = torch.randperm(size, generator=generator(self.seed, "epoch", epoch)).tolist()
            wanted = count - len(taken)
            taken.extend(self.rows[i] for i in order[offset : offset + wanted])
        return taken

    def _take_balanced(self, start: int, count: int) -> list[Row]:
        """The same where classes take turns: turn n holds the n-th row of each class."""
        classes = len(self.classes)
        taken: list[Row] = []
        while len(taken) < count:
            turn, offset = divmod(start + len(taken), classes)
            order = torch.randperm(
                classes, generator=generator(self.seed, "classes", turn)
            ).tolist()
            wanted = order[offset : offset + count - len(taken)]
            taken.extend(self._of_class(place, turn) for place in wanted)
        return taken

    def _of_class(self, place: int, number: int) -> Row:
        """The row of one class with this number in its own endless sequence."""
        rows = self.classes[place]
        epoch, offset = divmod(number, len(rows))
        if self._orders.get(place, (-1, []))[0] != epoch:
            random = generator(self.seed, "class-epoch", place, epoch)
            self._orders[place] = (epoch, torch.randperm(len(rows), generator=random).tolist())
        return rows[self._orders[place][1][offset]]
