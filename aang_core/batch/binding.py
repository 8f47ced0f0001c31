"""Between steps 4 and 5. In: names of data sources and a task. Out: bound sources, and the reason for each that is
missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from aang_core.batch.checks import errors_of
from aang_core.batch.protocols import Backbone, Binding, BoundSource, no_op
from aang_core.data.task import Task
from aang_core.errors import TaskError
from aang_core.registry.options import Options, settings_of
from aang_core.registry.records import load_factory
from aang_core.registry.registry import Registry


def bind_sources(
    names: Iterable[str],
    registry: Registry,
    task: Task,
    backbone: Backbone | None,
    options: Options,
    seed: int = 0,
    cache: Path | None = None,
    *,
    remark: Callable[[str], None] = no_op,
    progress: Callable[[str, int, int], None] = no_op,
) -> tuple[dict[str, BoundSource], dict[str, str]]:
    """Bind data sources to a task.

    :param backbone: the encoder; None where only `BoundSource.provides` is asked for.
    :param options: the run's ``[primitives.NAME]`` tables.
    :param cache, remark, progress: as in `Binding`.
    :returns: the bound sources by name, and by name why the others' data is not there.
    """
    bound: dict[str, BoundSource] = {}
    unavailable: dict[str, str] = {}
    for name in dict.fromkeys(names):
        record = registry.primitive(name)
        binding = Binding(
            task=task,
            backbone=backbone,
            options=settings_of(record, options),
            seed=seed,
            cache=cache,
            remark=remark,
            progress=progress,
        )
        try:
            with errors_of(registry.maker(name), "its factory"):
                bound[name] = load_factory(record.factory)(binding)
        except TaskError as cause:
            unavailable[name] = str(cause)
    return bound, unavailable
