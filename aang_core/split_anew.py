"""Splits drawn anew for each seed, as ``--split-anew`` asks. In: `Task`. Out: the same task, split another way.

Official splits can be too small to tell anything, or share texts with train. Pooled, freed of repeats and split again
for every seed, the same data shows how much of a difference is the luck of one draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from aang_core.errors import TaskError
from aang_core.task_spec import LABEL
from aang_core.task_splits import repeats_together, split_rows

if TYPE_CHECKING:
    from datasets import Dataset

    from aang_core.task import Task


def split_anew(task: Task, dev: float, test: float, seed: int) -> Task:
    """Pool the labelled rows, drop repeats, and split by class.

    Of rows with equal texts (`task_splits.normalised`) the first stays where all have one label; texts with several
    labels are left out. Depends on the task, the shares and `seed` alone, so every method sees the same splits. Rows of
    a test split without labels are not used.

    :param dev, test: shares of the pool, above 0, together below 1; the rest is train.
    :raises TaskError: where a split would have no row, or train would lack a class.
    """
    pool = _pooled(task)
    kept = _distinct(pool)
    labels = [pool[LABEL][row] for row in kept]
    generator = np.random.default_rng([seed, len(kept)])
    parts = split_rows(task.kind, labels, (dev, test), generator)
    names = ("train", "dev", "test")
    if not all(parts):
        empty = ", ".join(name for name, part in zip(names, parts, strict=True) if not part)
        raise TaskError(
            f"task {task.name!r} cannot be split anew: {len(kept)} distinct labelled texts leave no row for {empty}; "
            "choose other shares, or bring more texts"
        )
    splits = {
        name: pool.select([kept[i] for i in part]) for name, part in zip(names, parts, strict=True)
    }
    return attrs.evolve(task, splits=splits)


def _pooled(task: Task) -> Dataset:
    from datasets import concatenate_datasets

    labelled = [split for split in task.splits.values() if LABEL in split.column_names]
    return concatenate_datasets(labelled)


def _distinct(pool: Dataset) -> list[int]:
    """A row for each text that has one label."""
    columns = [pool[name][:] for name in pool.column_names if name != LABEL]
    labels = pool[LABEL][:]
    groups = repeats_together(columns)
    return [group[0] for group in groups if all(labels[i] == labels[group[0]] for i in group)]
