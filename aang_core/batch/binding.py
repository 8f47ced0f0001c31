"""Between steps 4 and 5. In: names of data sources and a task. Out: bound sources, and why others are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aang_core.batch.checks import errors_of
from aang_core.batch.protocols import Backbone, Binding, BoundSource, no_op
from aang_core.data.task import Task
from aang_core.errors import ConfigError, TaskError, did_you_mean, one_message
from aang_core.registry.records import Primitive, load_factory
from aang_core.registry.registry import Registry

Options = Mapping[str, Mapping[str, Any]]


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


def settings_of(record: Primitive, options: Options) -> dict[str, Any]:
    """A record's options with the run's over them; `check_options` has looked at both."""
    return {**record.options, **options.get(record.name, {})}


def check_options(options: Options, registry: Registry) -> None:
    """Check all ``[primitives.NAME]`` tables before anything is bound.

    :raises ConfigError: for tables of unknown primitives, unknown options, and values of another type than the
        record's default; names them all.
    """
    faults: list[str] = []
    for name, given in sorted(options.items()):
        if name not in registry.primitives:
            faults.append(registry.unknown("primitive", name, registry.primitives))
            continue
        defaults = registry.primitives[name].record.options
        for key, value in given.items():
            where = f"[primitives.{name}]: "
            if key not in defaults:
                faults.append(f"{where}unknown option {key!r}{did_you_mean(key, defaults)}")
            elif not _same_kind(value, defaults[key]):
                kind = type(defaults[key]).__name__
                faults.append(f"{where}`{key}` must be of the type {kind} (got {value!r})")
    if faults:
        raise ConfigError(one_message(faults, "options of primitives"))


def check_corpora(external: Iterable[str], registry: Registry) -> None:
    """Check the names that corpora are given under: one under a misspelt name would never be read.

    :raises ConfigError: for names of no data source; names them all.
    """
    sources = registry.at_stage("data")
    faults = [
        f"--external {name}: " + f"there is no such data source{did_you_mean(name, sources)}"
        for name in external
        if name not in sources
    ]
    if faults:
        raise ConfigError(one_message(faults, "corpora"))


def _same_kind(value: Any, default: Any) -> bool:
    """Whether a value may stand in for a default; a whole number may stand for a real one, a bool for none."""
    if default is None:
        return True
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (list, tuple)):
        return isinstance(value, (list, tuple))
    if isinstance(default, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, type(default))
