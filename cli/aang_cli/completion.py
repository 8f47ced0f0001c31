"""``aang completion``: shell completion of commands, options, and names of primitives and spaces."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

VARIABLE = "_AANG_COMPLETE"
"""The environment variable through which a shell asks; click answers."""


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what a shell needs to complete `aang` commands.

    \b
    Example:
      aang completion bash >> ~/.bashrc
      aang completion zsh >> ~/.zshrc
      aang completion fish > ~/.config/fish/completions/aang.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click {click.__version__} knows no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "aang", VARIABLE).source())


def primitives(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The primitives whose names begin so."""
    return _named(incomplete, "primitives")


def spaces(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The spaces whose names begin so, and files."""
    return _named(incomplete, "spaces") or [CompletionItem(incomplete, type="file")]


def _named(incomplete: str, kind: str) -> list[CompletionItem]:
    from aang_core.errors import AangError
    from aang_core.registry.registry import load_registry

    try:
        registry = load_registry()
    except AangError:
        return []  # a shell that completes has nowhere to say it; the command itself will
    entries = getattr(registry, kind)
    matching: Iterable[str] = (name for name in entries if name.startswith(incomplete))
    return [CompletionItem(name, help=entries[name].record.summary) for name in matching]
