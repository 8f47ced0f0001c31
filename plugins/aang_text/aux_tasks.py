"""Stage 1: the texts and labels of a further task, ``aux:NAME``, one source for each that the run names."""

from __future__ import annotations

import attrs

from aang_core.batch.protocols import Binding
from aang_core.errors import TaskError
from aang_text.sources import TaskTexts


class AuxTexts(TaskTexts):
    """Another task's training texts with their labels.

    :ivar task: that task.
    """

    def __init__(self, binding: Binding) -> None:
        tasks = binding.task.auxiliary
        name = binding.options["task"]
        if name not in tasks:
            known = ", ".join(sorted(tasks)) or "none"
            raise TaskError(
                f"aux: expected a further task {name!r}, found {known}; give --aux-task with a folder, "
                "a file or a registered task"
                if name
                else "aux: expected a further task, found none; give --aux-task TASK"
            )
        self.task = tasks[name]
        super().__init__(attrs.evolve(binding, task=self.task))
        self.name = f"aux:{name}"
