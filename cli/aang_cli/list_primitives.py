"""``aang list-primitives``: what can be chosen at each stage."""

from __future__ import annotations

import click

from aang_cli import options, render


@click.command("list-primitives")
@click.option(
    "--stage",
    type=click.Choice(["data", "transform", "representation", "output"]),
    help="Only this stage.",
)
@options.as_json
@options.plugins
def command(stage: str | None, as_json: bool, plugins: str) -> None:
    """List the installed primitives: what an objective can be made of.

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
