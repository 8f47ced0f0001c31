"""``aang list-spaces``: the named unions of products of primitives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from aang_cli import options, render

if TYPE_CHECKING:
    from aang_core.registry.registry import Registry


@click.command("list-spaces")
@options.as_json
@options.plugins
def command(as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the named spaces and how many objectives each has.

    \b
    Example:
      aang list-spaces
    """
    registry = options.registry_of(plugins)
    found = [_row(name, registry) for name in registry.spaces]
    columns = ("name", "summary", "legal", "combinations", "plugin", "version", "error")
    render.rows(found, columns=columns, title="Spaces", as_json=as_json)


def _row(name: str, registry: Registry) -> dict[str, Any]:
    """One space; `error` says why it cannot be used, as where a plugin that it draws on is missing."""
    from aang_core.errors import ConfigError
    from aang_core.registry.legality import Legal, enumerate_objectives
    from aang_core.registry.spaces import resolve_space

    entry = registry.spaces[name]
    legal = combinations = None
    error = ""
    try:
        verdicts = enumerate_objectives(resolve_space(name, registry), registry)
        legal = sum(isinstance(verdict, Legal) for verdict in verdicts)
        combinations = len(verdicts)
    except ConfigError as cause:
        error = str(cause)
    return {
        "name": name,
        "summary": entry.record.summary,
        "legal": legal,
        "combinations": combinations,
        "plugin": entry.plugin,
        "distribution": entry.distribution,
        "version": entry.version,
        "source": entry.record.source,
        "optional": sorted(entry.record.optional),
        "blocks": [attrs.asdict(block) for block in entry.record.blocks],
        "error": error,
    }
