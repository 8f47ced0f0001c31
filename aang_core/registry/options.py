"""Options of plugins' records, and names of corpora, checked. Out: the options for the factory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from aang_core.config.schema import Table, like, said
from aang_core.config.settings import OPTION_TABLES, RunConfig
from aang_core.errors import ConfigError, PluginError, did_you_mean, one_message
from aang_core.registry.records import Record, load_factory
from aang_core.registry.registry import Registry

Options = Mapping[str, Mapping[str, Any]]
"""Name of a record → its options that a run sets."""


def settings_of(record: Record, options: Options) -> dict[str, Any]:
    """A record's options with the run's over them; `check_options` has looked at both."""
    return {**record.options, **options.get(record.name, {})}


def check_options(config: RunConfig, registry: Registry) -> None:
    """Check all tables of options before anything is bound.

    :raises ConfigError: for tables of unknown names, unknown options, values of another type than the record's default,
        and whatever a record's own check says; names them all.
    """
    faults: list[str] = []
    for table, index in OPTION_TABLES.items():
        known, kind = getattr(registry, index), index.removesuffix("s")
        for name, given in sorted(getattr(config, table).items()):
            if name in known:
                faults += option_faults(known[name].record, given, (table, name))
            else:
                faults.append(f"[{table}.{name}]: {registry.unknown(kind, name, known)}")
    if faults:
        raise ConfigError(one_message(faults, "options"))


def option_faults(
    record: Record, given: Mapping[str, Any], path: tuple[str, ...], least: float = -math.inf
) -> list[str]:
    """What is wrong with a record's options.

    :param given: those that are set. :param path: where their table stands. :param least: of numbers.
    :raises PluginError: where the record's own check fails.
    """
    rule = Table({name: like(default, least) for name, default in record.options.items()})
    faults = [said((*path, *inner), text) for inner, text in rule.faults(given)]
    if faults or not record.check_options:
        return faults
    try:
        found = list(load_factory(record.check_options)({**record.options, **given}))
    except Exception as cause:  # a stranger's code: say whose
        raise PluginError(
            f"{record.name!r}: {record.check_options} failed: {type(cause).__name__}: {cause}"
        ) from cause
    return [f"[{'.'.join(path)}]: {fault}" for fault in found]


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
