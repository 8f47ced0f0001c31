"""``aang list-primitives``: what can be chosen at each stage."""

from __future__ import annotations

import click

from aang_cli import options, render
from aang_core.registry.records import STAGES


@click.command("list-primitives")
@click.option(
    "--stage",
    type=click.Choice(STAGES),
    help="Only this stage.  [default: all]",
)
@options.as_json
@options.plugins
def command(stage: str | None, as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the installed primitives.

    An objective is made of one of each stage.

    \b
    Example:
      aang list-primitives --stage transform
    """
    found = [
        {
            "name": name,
            "stage": entry.stage,
            "summary": entry.record.summary,
            "plugin": entry.plugin,
            "distribution": entry.distribution,
            "version": entry.version,
            "provides": sorted(entry.record.capabilities - {f"{entry.stage}:{name}"}),
            "may_provide": sorted(getattr(entry.record, "may_provide", ())),
            "requires": sorted(entry.record.requires),
            "conflicts": sorted(entry.record.conflicts),
            "options": dict(entry.record.options),
            "source": entry.record.source,
        }
        for name, entry in options.registry_of(plugins).primitives.items()
        if stage in (None, entry.stage)
    ]
    columns = ("stage", "name", "summary", "requires", "plugin", "version")
    render.rows(found, columns=columns, title="Primitives", as_json=as_json)
