"""``aang list-selectors``: the ways to choose auxiliary examples."""

from __future__ import annotations

import click

from aang_cli import options, render


@click.command("list-selectors")
@options.as_json
@options.plugins
def command(as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the installed selectors.

    Each is a way in which `aang select` can rank the examples of other tasks.

    \b
    Example:
      aang list-selectors
    """
    found = [
        {
            "name": name,
            "summary": entry.record.summary,
            "plugin": entry.plugin,
            "distribution": entry.distribution,
            "version": entry.version,
            "options": dict(entry.record.options),
            "source": entry.record.source,
        }
        for name, entry in options.registry_of(plugins).selectors.items()
    ]
    columns = ("name", "summary", "plugin", "version")
    render.rows(found, columns=columns, title="Selectors", as_json=as_json)
