"""Between steps 4 and 5. In: names of data sources and a task. Out: bound sources, and the reason for each that is
missing."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from aang_core.batch.checks import errors_of
from aang_core.batch.protocols import Binding, BoundSource
from aang_core.errors import TaskError
from aang_core.registry.options import Options, settings_of
from aang_core.registry.records import load_factory
from aang_core.registry.registry import Registry


def bind_sources(
    names: Iterable[str], registry: Registry, base: Binding, options: Options
) -> tuple[dict[str, BoundSource], dict[str, str]]:
    """Bind data sources to a task.

    :param base: what they are bound to; without an encoder where only `BoundSource.provides` is asked for.
    :param options: the run's ``[primitives.NAME]`` tables, in place of the base's.
    :returns: the bound sources by name, and by name why the others' data is not there.
    """
    bound: dict[str, BoundSource] = {}
    unavailable: dict[str, str] = {}
    for name in dict.fromkeys(names):
        record = registry.primitive(name)
        binding = attrs.evolve(base, options=settings_of(record, options))
        try:
            with errors_of(registry.maker(name), "its factory"):
                bound[name] = load_factory(record.factory)(binding)
        except TaskError as cause:
            unavailable[name] = str(cause)
    return bound, unavailable
