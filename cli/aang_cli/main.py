"""The root command: finds subcommands when they are used, and turns errors that a user can repair into messages.

Exit codes: 0, 1 for an error that the user can repair, 2 for wrong usage, 130 or 143 when Ctrl-C or SIGTERM
ended it. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from aang_cli.render import visible
from aang_core import __version__
from aang_core.errors import AangError

COMMANDS: Mapping[str, str] = {
    "run": "aang_cli.run:command",
    "refit": "aang_cli.refit:command",
    "sweep": "aang_cli.sweep:command",
    "predict": "aang_cli.predict:command",
    "export": "aang_cli.export:command",
    "submission": "aang_cli.submission:command",
    "audit": "aang_cli.audit:command",
    "compare": "aang_cli.compare:command",
    "report": "aang_cli.report:command",
    "select": "aang_cli.select:command",
    "list-objectives": "aang_cli.lists:objectives",
    "list-primitives": "aang_cli.lists:primitives",
    "list-spaces": "aang_cli.lists:spaces",
    "list-selectors": "aang_cli.lists:selectors",
    "list-weightings": "aang_cli.lists:weightings",
    "plugins": "aang_cli.plugins:command",
    "show": "aang_cli.show:command",
    "doctor": "aang_cli.doctor:command",
    "completion": "aang_cli.completion:command",
}
"""Subcommand → ``module:command``, in the order of ``aang --help``. The modules import no more than click."""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when the subcommand is asked for."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self.lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


class RootGroup(LazyGroup):
    """The one place where an `AangError` becomes a message."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AangError as error:
            raise click.ClickException(visible(str(error))) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)


@click.group(cls=RootGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="aang")
def main() -> None:
    """Fine-tune an encoder together with auxiliary objectives that are composed automatically.

    \b
    Example:
      aang list-objectives --space td
      aang run --space td --out runs/first
      aang report runs/first
    """
