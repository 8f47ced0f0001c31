"""``aang plugins``: what is installed, where it comes from, and what could not be imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, plugins_new, render

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


command.add_command(plugins_new.command)
