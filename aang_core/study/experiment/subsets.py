"""Subsets of tasks, each written as a folder that any command can read. In: `Task` and row numbers. Out: files.

A study whose runs all read such folders needs nothing else to be repeated, and a subset that was drawn once is the same
for every method.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tomli_w

from aang_core.data.spec import LABEL
from aang_core.data.splits import draw_labels
from aang_core.data.task import Task
from aang_core.train.export import gold

_CHUNK = 2048


def drawn_rows(
    task: Task, split: str, count: int, seed: int, excluded: frozenset[int] = frozenset()
) -> list[int]:
    """At most `count` row numbers of a split, ascending, by class as `draw_labels` draws them.

    :param count: 0 for all. :param excluded: rows that are left out in any case.
    """
    data = task.splits[split]
    usable = [row for row in range(len(data)) if row not in excluded]
    if count == 0 or count >= len(usable):
        return usable
    generator = np.random.default_rng([seed, len(usable), count])
    if LABEL not in data.column_names:
        return sorted(generator.permutation(usable)[:count].tolist())
    labels = data[LABEL][:]
    picked = draw_labels(task.kind, [labels[row] for row in usable], count, generator)
    return [usable[i] for i in picked]


def write_task(task: Task, rows: Mapping[str, Sequence[int]], folder: Path) -> None:
    """Write these rows of each split, whole or not at all; a folder that is there already is kept."""
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    for split, numbers in rows.items():
        with (partial / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for start in range(0, len(numbers), _CHUNK):
                for example in task.splits[split].select(list(numbers[start : start + _CHUNK])):
                    if LABEL in example:
                        example = {**example, LABEL: gold(task, example[LABEL])}
                    file.write(json.dumps(example, ensure_ascii=False) + "\n")
    settings = {"name": task.name, "metric": task.metric, "kind": task.kind}
    (partial / "task.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    partial.replace(folder)
