"""Rows, steps and weights from the sizes of the tasks. In: RunConfig and how many rows there are. Out: final numbers.

Training on several tasks at once usually goes through all of their examples equally often (MT-DNN: Liu et al.,
"Multi-Task Deep Neural Networks", ACL 2019). Here each step holds rows of the end-task and of the others; these
functions find how many, and what each task then weighs, so that the expected loss is the mean over all examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch

from aang_core.batch.packing import BoundObjective
from aang_core.config.settings import WITHOUT_OBJECTIVES, RunConfig
from aang_core.data.task import Task
from aang_core.errors import ConfigError
from aang_core.method.weights.weighting import Factors, WeightState


def proportioned(config: RunConfig, rows: int, auxiliary: Mapping[str, Task]) -> RunConfig:
    """The configuration with numbers in place of ``epochs`` and of ``auxiliary_rows = "proportional"``.

    :param rows: labelled training rows of the end-task.
    :param auxiliary: the further tasks.
    :raises ConfigError: where rows are to be proportional to further tasks and there are none.
    """
    training = config.training
    if training.epochs:
        steps = training.epochs * -(-rows // training.end_task_rows)
        training = attrs.evolve(training, max_steps=steps)
    if training.auxiliary_rows == 0:
        if not auxiliary and config.method not in WITHOUT_OBJECTIVES:
            raise ConfigError(
                '`training.auxiliary_rows = "proportional"` needs further tasks to be in proportion to, and there are '
                "none; give --aux-task or --selection, or a number of rows"
            )
        size = sum(len(task.splits["train"]) for task in auxiliary.values())
        wanted = round(training.end_task_rows * size / rows)
        training = attrs.evolve(training, auxiliary_rows=max(wanted, len(auxiliary), 1))
    return attrs.evolve(config, training=training)


def sized_state(objectives: Sequence[BoundObjective], rows: int, factors: Factors) -> WeightState:
    """Weights in proportion to the texts of each objective's data source, and λ to the end-task's labelled rows.

    With one objective a task, ``λ = N_e / (N_e + Σ N_k)`` and ``w_k = N_k / Σ N_k``: every example of every task counts
    the same (the public code of FastMTL, Kung et al., EMNLP 2021, weighs its tasks' losses by size as well).

    :param rows: N_e.
    """
    sizes = torch.tensor([len(each.source) for each in objectives], dtype=torch.float64)
    logits = sizes.log()
    shares = torch.stack([torch.tensor(float(rows), dtype=torch.float64), sizes.sum()])
    return attrs.evolve(
        WeightState.initial(factors), objectives=logits - logits.mean(), end_task=shares.log()
    )
