"""``aang plugins``: what is installed and what could not be imported; ``aang plugins new``: a package to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render
from aang_core.registry.records import STAGES

if TYPE_CHECKING:
    from aang_core.registry.discovery import FailedPlugin, Plugin
    from aang_core.registry.registry import Registry


@click.group("plugins", invoke_without_command=True)
@options.as_json
@options.plugins
@click.pass_context
def command(ctx: click.Context, as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the installed plugins.

    Those that fail to import are there, with the cause.

    \b
    Example:
      aang plugins --json
    """
    if ctx.invoked_subcommand is not None:
        return
    from aang_core.registry.registry import load_registry

    registry = load_registry(frozenset(plugins) or None)
    everyone: list[Plugin | FailedPlugin] = [*registry.plugins, *registry.failed]
    everyone.sort(key=lambda plugin: plugin.provenance)
    found = [_row(plugin, registry) for plugin in everyone]
    columns = ("name", "distribution", "version", "summary", "primitives", "error")
    render.rows(found, columns=columns, title="Plugins", as_json=as_json)


def _row(plugin: Plugin | FailedPlugin, registry: Registry) -> dict[str, Any]:
    name = plugin.provenance.plugin
    cause = getattr(plugin, "cause", "")
    doc = getattr(getattr(plugin, "module", None), "__doc__", None) or ""
    return {
        "name": name,
        "plugin": name,
        "distribution": plugin.provenance.distribution,
        "version": plugin.provenance.version,
        "summary": doc.strip().partition("\n")[0],
        "hooks": list(getattr(plugin, "hooks", ())),
        "primitives": [p for p, entry in registry.primitives.items() if entry.plugin == name],
        "spaces": [s for s, entry in registry.spaces.items() if entry.plugin == name],
        "error": cause,
    }


@command.command("new")
@click.argument("name")
@click.option(
    "--stage",
    type=click.Choice(STAGES),
    default="transform",
    show_default=True,
    help="What kind of primitive it brings.",
)
@options.path("--out", "DIR", "The folder to make.  [default: aang-NAME]")
@options.as_json
def new(name: str, stage: str, out: Path | None, as_json: bool) -> None:
    """Write a plugin package with one working primitive.

    Its tests, a README and a CI file come with it. NAME is the primitive's, in kebab-case; the package is called
    aang-NAME.

    \b
    Example:
      aang plugins new shuffle
      aang plugins new near-window --stage representation --out packages/near-window
    """
    from aang_cli.scaffold import Scaffold, check, write
    from aang_core.registry.registry import load_registry

    scaffold = Scaffold(name, stage)
    folder = out if out is not None else Path(scaffold.distribution)
    check(scaffold, folder, load_registry())
    written = write(scaffold, folder)
    if as_json:
        render.document(
            {
                "name": name,
                "stage": stage,
                "distribution": scaffold.distribution,
                "package": scaffold.package,
                "directory": str(folder),
                "files": written,
            }
        )
        return
    rows = [{"file": path} for path in written]
    render.table(rows, columns=("file",), title=f"Wrote {folder}")
    place = shlex.quote(str(folder))
    render.remark(
        "next:\n"
        f"  pip install --editable {place}\n"
        f"  aang list-objectives --space td --with {name}\n"
        f"  pytest {place}"
    )
