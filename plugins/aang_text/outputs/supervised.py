"""Stage 4, ``supervised``: the labels of another task, by that task's own loss.

Intermediate tasks with labels help if they resemble the end-task (Phang et al., "Sentence Encoders on STILTs", 2018).
Here they are ordinary objectives, whose weight may be learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from aang_core.batch.parts import PositionHead, backbone_of, new_head
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Hidden, Layout, Packed, Targets
from aang_core.data.task import Task
from aang_core.errors import PluginError
from aang_core.method.end_task import end_task_losses, label_targets


class Supervised:
    """Cross-entropy for classes and words, squared error for regression, binary cross-entropy for several labels.

    The head is small and the task's own; it reads each row's first position, or each labelled word's.

    :ivar head_name: tells the heads of different tasks apart.
    """

    name = "supervised"
    layout = Layout(relation="label")
    min_rows = 1
    row_multiple = 1
    pointwise = True

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.task = _task_of(binding.source)
        self.head_name = f"{self.name}:{self.task.name}"
        self.width = int(backbone_of(binding, self.name).hidden_size)

    def targets(self, packed: Packed) -> Targets:
        """One target a row, or for token tasks one a labelled position."""
        return label_targets(self.task, packed)

    def head(self) -> nn.Module:
        """A new head: [M, H] → [M, C]."""

        def make() -> PositionHead:
            return PositionHead(self.width, self.task.num_outputs)

        return new_head(self.binding, self.head_name, make)

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] losses; a task without classes is scored by the squared error."""
        index = targets.index.to(hidden.states.device)
        states = hidden.first(index) if targets.level == "row" else hidden.states[index]
        logits = head(states)
        return end_task_losses(self.task.kind, logits, targets.value.to(logits.device))

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is fitted."""
        return {}


def _task_of(source: Any) -> Task:
    """:raises PluginError: where the data source does not say which task its labels belong to."""
    task = getattr(source, "task", None)
    if not isinstance(task, Task):
        raise PluginError(
            "supervised: expected a data source with the attribute `task`, the task that its labels "
            f"belong to, found {source!r}; a source that provides data:aux-labels must have it"
        )
    return task
