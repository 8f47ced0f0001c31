"""Between steps 2 and 3. In: names of further labelled tasks, or a selection and N. Out: tasks, and a source for each.

A record with `DataSource.per_task` stands for one source for each further task of a run; in a space it means all of
them. `read_selection` reads the result of `aang select`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from aang_core.config.settings import WITHOUT_OBJECTIVES, RunConfig
from aang_core.data.task import Task, load_task, registered_tasks
from aang_core.errors import ConfigError, RunError, TaskError, one_message
from aang_core.registry.records import Block, DataSource, Space
from aang_core.registry.registry import Registry

SCHEMA = 1
ROWS = "selection.jsonl"
SUMMARY = "summary.json"
SETTINGS = "selection.toml"


def load_auxiliary(
    names: Iterable[str], reads: Sequence[str], registry: Registry, drop_empty: bool = False
) -> dict[str, Task]:
    """The further tasks by short name, in the order given.

    :param names: as for `task.load_task`. :param drop_empty: as there.
    :param reads: the input columns that the encoder reads.
    :raises TaskError: where one cannot be read, or two have the same short name.
    """
    tasks: dict[str, Task] = {}
    for name in names:
        task = load_task(
            name,
            reads=reads,
            registered=registered_tasks(registry),
            external={},
            drop_empty=drop_empty,
        )
        short = short_name(task)
        if short in tasks:
            raise TaskError(
                f"two further tasks have the name {short!r}, the second one is {name!r}; give one of "
                'them another, with a line name = "…" in its task.toml'
            )
        tasks[short] = attrs.evolve(task, name=short)
    return tasks


def short_name(task: Task) -> str:
    """A task's name for ids and folders: small letters, digits and hyphens, whatever its file calls it."""
    return re.sub(r"[^a-z0-9]+", "-", task.name.lower()).strip("-") or "task"


def joined_to(task: Task, auxiliary: Mapping[str, Task]) -> Task:
    """The end-task with its further tasks, and what is to be said of them."""
    said = tuple(f"{name}: {remark}" for name, each in auxiliary.items() for remark in each.remarks)
    return attrs.evolve(task, auxiliary=dict(auxiliary), remarks=(*task.remarks, *said))


def with_sources(registry: Registry, auxiliary: Mapping[str, Task]) -> Registry:
    """The registry with a data source ``NAME:TASK`` for each further task."""
    for template in _templates(registry):
        sources = [
            attrs.evolve(
                template,
                name=source_name(template.name, task),
                summary=f"The task {task}: its training texts and their labels",
                options={**template.options, "task": task},
                per_task=False,
            )
            for task in auxiliary
        ]
        registry = registry.with_primitives(sources, template.name)
    return registry


def expanded(space: Space, registry: Registry, auxiliary: Iterable[str]) -> Space:
    """The space with every per-task record replaced by its sources; without tasks it stays, and is unavailable."""
    tasks = tuple(auxiliary)
    names = {
        each.name: tuple(source_name(each.name, task) for task in tasks) or (each.name,)
        for each in _templates(registry)
    }

    def spread(data: Iterable[str]) -> tuple[str, ...]:
        found = (source for name in data for source in names.get(name, (name,)))
        return tuple(dict.fromkeys(found))

    blocks: list[Block] = [attrs.evolve(b, data=spread(b.data)) for b in space.blocks]
    return attrs.evolve(space, blocks=blocks, optional=spread(sorted(space.optional)))


def source_name(template: str, task: str) -> str:
    """What the source of one task is called."""
    return f"{template}:{task}"


def _templates(registry: Registry) -> list[DataSource]:
    records = (entry.record for entry in registry.primitives.values())
    return [each for each in records if isinstance(each, DataSource) and each.per_task]


@attrs.frozen(eq=False, kw_only=True)
class Selection:
    """A finished selection.

    :param summary: ``summary.json``; ``target``, ``pools`` (name → as it was given), ``model``, ``selector``, ``seed``.
    :param task: [R] the number of each row's task in `names`. :param row: [R]. :param score: [R]; the best first.
    """

    directory: Path
    summary: Mapping[str, Any]
    names: tuple[str, ...]
    task: NDArray[np.int32]
    row: NDArray[np.int64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.row)

    def top(self, count: int) -> dict[str, list[int]]:
        """Task name → its rows among the `count` best, sorted; tasks without any are left out.

        :raises RunError: where the selection has fewer rows.
        """
        if not 1 <= count <= len(self):
            raise RunError(
                f"{self.directory} ranks {len(self)} rows; expected a top from 1 to {len(self)}, found {count}"
            )
        rows: dict[str, list[int]] = {}
        for task, row in zip(self.task[:count].tolist(), self.row[:count].tolist(), strict=True):
            rows.setdefault(self.names[task], []).append(row)
        return {name: sorted(rows[name]) for name in self.names if name in rows}

    def counts(self, count: int) -> dict[str, int]:
        """How many of the `count` best rows each task has, 0 included."""
        found = Counter(self.task[:count].tolist())
        return {name: found[number] for number, name in enumerate(self.names)}


def read_selection(directory: str | Path) -> Selection:
    """A selection that has ended.

    :raises RunError: where there is none, it is unfinished, or a file is damaged; says which line.
    """
    place = Path(directory)
    summary = _summary(place)
    names = tuple(summary["pools"])
    numbers = {name: number for number, name in enumerate(names)}
    tasks, rows, scores = [], [], []
    path = place / ROWS
    at = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for at, text in enumerate(lines, 1):
                line = json.loads(text)
                if line["rank"] != at:
                    raise ValueError(f"expected the rank {at}, found {line['rank']!r}")
                tasks.append(numbers[line["task"]])
                rows.append(int(line["row"]))
                scores.append(float(line["score"]))
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise RunError(
            f"{path}:{at} is damaged ({cause!r}); select again into a new --out"
        ) from cause
    if at != summary["ranked"]:
        raise RunError(
            f"{path} holds {at} rows, and {SUMMARY} says {summary['ranked']}; select again into a new --out"
        )
    return Selection(
        directory=place,
        summary=summary,
        names=names,
        task=np.array(tasks, dtype=np.int32),
        row=np.array(rows, dtype=np.int64),
        score=np.array(scores, dtype=np.float64),
    )


def _summary(place: Path) -> dict[str, Any]:
    path = place / SUMMARY
    if not path.is_file():
        unfinished = (place / SETTINGS).is_file()
        hint = (
            f"it is unfinished; go on with `aang select --resume --out {place}`"
            if unfinished
            else "make one with `aang select`"
        )
        raise RunError(f"{place} holds no finished selection (no {SUMMARY}): {hint}")
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = summary["schema"]
        if schema == SCHEMA:
            dict(summary["pools"]), int(summary["ranked"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise RunError(f"{path} is damaged: {cause!r}; select again into a new --out") from cause
    if schema != SCHEMA:
        raise RunError(f"{path} has the schema {schema}; this version of aang reads {SCHEMA}")
    return summary


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
    if config.method in WITHOUT_OBJECTIVES:
        faults.append(
            f"the method {config.method} trains on the target alone and would leave the selection unused; "
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
    tasks = load_auxiliary([pools[name] for name in rows], reads, registry, config.drop_empty)
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
