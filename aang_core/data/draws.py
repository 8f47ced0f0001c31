"""The rows of one seed (step 2). In: a `Task`, a seed. Out: the same task, split anew or with fewer labels.

What is drawn depends on the task, the settings and the seed alone, so every method sees the same rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from aang_core.data.duplicates import repeats_together
from aang_core.data.spec import LABEL
from aang_core.data.splits import draw_labels, split_rows
from aang_core.data.task import Task
from aang_core.errors import TaskError

if TYPE_CHECKING:
    from datasets import Dataset


def draw_train_rows(task: Task, rows: int, seed: int) -> Task:
    """Keep `rows` labelled training rows and make the other ones unlabelled, as ``--train-rows`` asks.

    :param rows: how many; 0 keeps all.
    :raises TaskError: where there are fewer rows, or more classes than `rows`.
    """
    from datasets import concatenate_datasets

    train = task.splits["train"]
    if rows == 0:
        return task
    labels = train[LABEL][:]
    classes = len(set(labels)) if task.kind == "class" else 1
    if not classes <= rows <= len(labels):
        raise TaskError(
            f"cannot draw {rows} training rows from task {task.name!r}; expected from {classes} "
            f"(one of each class) to {len(labels)} (the whole training split)"
        )
    chosen = draw_labels(task.kind, labels, rows, np.random.default_rng(seed))
    kept = set(chosen)
    others = [row for row in range(len(labels)) if row not in kept]
    unlabelled = task.unlabelled
    if others:
        hidden = train.select(others).remove_columns(LABEL)
        parts = [hidden] if unlabelled is None else [hidden, unlabelled]
        unlabelled = concatenate_datasets(parts)
    splits = {**task.splits, "train": train.select(chosen)}
    return attrs.evolve(task, splits=splits, unlabelled=unlabelled)


def split_anew(task: Task, dev: float, test: float, seed: int) -> Task:
    """Pool the labelled rows, drop repeats, and split by class, as ``--split-anew`` asks.

    Official splits can be too small to tell anything, or share examples with train. Pooled, freed of repeats and split
    again for every seed, the same data shows how much of a difference is the luck of one draw.

    Of rows with equal inputs (`deduplication.normalised`) the first stays where all have one label; those with several
    labels are left out. Rows of a test split without labels are not used.

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
            f"task {task.name!r} cannot be split anew: {len(kept)} distinct labelled examples leave no row for "
            f"{empty}; "
            "choose other shares, or bring more examples"
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
    """The first row of each distinct example that has one label."""
    columns = [pool[name][:] for name in pool.column_names if name != LABEL]
    labels = pool[LABEL][:]
    groups = repeats_together(columns)
    return [group[0] for group in groups if all(labels[i] == labels[group[0]] for i in group)]
