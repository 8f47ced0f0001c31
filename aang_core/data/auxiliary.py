"""Between steps 2 and 3. In: names of further labelled tasks. Out: a data source for each of them.

A record with `DataSource.per_task` stands for as many sources as a run names tasks; where a space lists the record,
it means them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from aang_core.batch.binding import registered_tasks
from aang_core.data.task import Task, load_task
from aang_core.errors import TaskError
from aang_core.registry.records import Block, DataSource, Space
from aang_core.registry.registry import Registry


def load_auxiliary(
    names: Iterable[str], reads: Sequence[str], registry: Registry
) -> dict[str, Task]:
    """The further tasks by short name, in the order given.

    :param names: as for `task.load_task`.
    :param reads: the input columns that the encoder reads.
    :raises TaskError: where one cannot be read, or two have the same short name.
    """
    tasks: dict[str, Task] = {}
    for name in names:
        task = load_task(name, reads=reads, registered=registered_tasks(registry), external={})
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
