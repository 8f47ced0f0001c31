"""Between steps 4 and 5. In: names of data sources and a task. Out: bound sources, and why others are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aang_core.errors import ConfigError, TaskError, did_you_mean, one_message
from aang_core.primitives import Primitive, load_factory
from aang_core.protocols import Backbone, Binding, BoundSource
from aang_core.registry import Registry
from aang_core.task import Task

Options = Mapping[str, Mapping[str, Any]]


def bind_sources(
    names: Iterable[str],
    registry: Registry,
    task: Task,
    backbone: Backbone | None,
    options: Options,
    seed: int = 0,
    cache: Path | None = None,
) -> tuple[dict[str, BoundSource], dict[str, str]]:
    """Bind data sources to a task.

    :param backbone: the encoder; None where only `BoundSource.provides` is asked for.
    :param options: the run's ``[primitives.NAME]`` tables.
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
        )
        factory = load_factory(record.factory)
        try:
            bound[name] = factory(binding)
        except TaskError as cause:
            unavailable[name] = str(cause)
    return bound, unavailable


def settings_of(record: Primitive, options: Options) -> dict[str, Any]:
    """A record's options with the run's over them.

    :raises ConfigError: for options that the record does not have; names them all.
    """
    given = options.get(record.name, {})
    faults = [
        f"[primitives.{record.name}]: unknown option {key!r}{did_you_mean(key, record.options)}"
        for key in given
        if key not in record.options
    ]
    if faults:
        raise ConfigError(one_message(faults, f"[primitives.{record.name}]"))
    return {**record.options, **given}
