"""Between steps 2 and 3. In: a selection directory and N. Out: further tasks with their selected rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from aang_core.data.auxiliary import load_auxiliary
from aang_core.data.task import Task
from aang_core.errors import ConfigError, one_message
from aang_core.registry.registry import Registry
from aang_core.selection.files import read_selection

if TYPE_CHECKING:
    from aang_core.config.settings import RunConfig


def check_selection(config: RunConfig) -> None:
    """Refuse what contradicts a selection, before anything is read.

    :raises ConfigError: with every contradiction.
    """
    if not config.selection:
        if config.top:
            raise ConfigError(
                f"`top` (--top {config.top}) counts the examples of a selection, and none is given; "
                "give --selection DIR, a directory that `aang select` has written"
            )
        return
    faults = []
    if not config.top:
        faults.append("a selection needs `top` (--top N): how many of its examples to train on")
    if config.aux_tasks:
        given = ", ".join(config.aux_tasks)
        faults.append(f"a selection brings its own further tasks; leave out --aux-task ({given})")
    if config.method == "finetune":
        faults.append(
            "the method finetune trains on the target alone and would leave the selection unused; "
            "expected static, aang, tartan or pretrain-finetune"
        )
    if faults:
        raise ConfigError(one_message(faults, f"selection {config.selection}"))


def load_selected(config: RunConfig, reads: Sequence[str], registry: Registry) -> dict[str, Task]:
    """The tasks of the `config.top` best examples, each with these alone as training rows.

    :param reads: the input columns that the encoder reads.
    :raises ConfigError: where the selection is for another target, is out of texts without labels, or names rows
        that a task does not have; with every fault.
    :raises RunError: where the selection is missing, unfinished or damaged, or holds fewer examples.
    :raises TaskError: where a task is no longer there.
    """
    directory = Path(config.selection).expanduser()
    selection = read_selection(directory)
    target, pools = selection.summary["target"], selection.summary["pools"]
    if not same_task(target, config.task):
        raise ConfigError(
            f"{directory} was selected for the target {target!r}, and this run's task is {config.task!r}; "
            f"give --task {target}, or select anew with --target {config.task}"
        )
    rows = selection.top(config.top)
    unlabelled = {each["task"] for each in selection.summary["tasks"] if not each["labelled"]}
    faults = [
        f"{directory}: {name} ({pools[name]}) holds texts without labels, which nothing can be learnt from as a "
        "further task; give its lines to a run with --external, or select from labelled tasks"
        for name in rows
        if name in unlabelled
    ]
    if faults:
        raise ConfigError(one_message(faults, f"selection {directory}"))
    tasks = load_auxiliary([pools[name] for name in rows], reads, registry)
    for (name, picked), task in zip(rows.items(), tasks.values(), strict=True):
        size = len(task.splits["train"])
        if picked[-1] >= size:
            faults.append(
                f"{directory} selects row {picked[-1]} of {name}, and {pools[name]} has {size} training rows now "
                f"(0 to {size - 1}): the data changed since; select anew"
            )
    if faults:
        raise ConfigError(one_message(faults, f"selection {directory}"))
    chosen = zip(tasks.items(), rows.values(), strict=True)
    return {short: restricted(task, picked) for (short, task), picked in chosen}


def restricted(task: Task, rows: Sequence[int]) -> Task:
    """The task with these rows of its training split alone."""
    train = task.splits["train"].select(list(rows))
    return attrs.evolve(task, splits={**task.splits, "train": train})


def same_task(first: str, second: str) -> bool:
    """Whether two texts name one task: the same words, or the same folder (its ``task.toml`` stands for it)."""
    place = _place(first)
    return first == second or (place is not None and place == _place(second))


def _place(name: str) -> Path | None:
    path = Path(name).expanduser()
    if not path.exists():
        return None
    return (path.parent if path.name == "task.toml" else path).resolve()
