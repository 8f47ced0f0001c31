"""The reference page of the commands, from click's own records."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
from aang_cli.main import main


def page() -> str:
    """Every command: what it does, an example, its arguments and options."""
    lines = [
        "# Commands",
        "",
        "Generated from the program; `aang COMMAND --help` says the same. Results go to stdout, with",
        "`--json` as one JSON document; remarks and progress go to stderr. The exit code is 0, 1 for an",
        "error that you can mend (its message says what was expected and found, and what to do), 2 for",
        "wrong usage, and 130 when interrupted.",
    ]
    for path, command in _commands("aang", main):
        lines += ["", *_entry(path, command)]
    return "\n".join(lines) + "\n"


def _commands(path: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(f"{path} {name}", command)


def _entry(path: str, command: click.Command) -> Iterator[str]:
    text = inspect.cleandoc(command.help or "")
    said, _, example = text.partition("\b\nExample:\n")
    arguments = [p.human_readable_name for p in command.params if isinstance(p, click.Argument)]
    yield f"## {path} {{: #{path.removeprefix('aang ').replace(' ', '-')} }}"
    yield ""
    yield said.replace("\b\n", "").replace("[", "\\[").strip()
    yield ""
    yield "```text"
    yield " ".join([path, "[OPTIONS]", *arguments])
    yield "```"
    if example:
        yield ""
        yield "For example:"
        yield ""
        yield "```sh"
        yield inspect.cleandoc(example)
        yield "```"
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        yield ""
        yield "| option | is |"
        yield "|---|---|"
        yield from (_row(option) for option in options)


def _row(option: click.Option) -> str:
    context = click.Context(click.Command("aang"))
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    shown, said = option.get_help_record(context) or ("", "")
    value = shown.rpartition(option.opts[-1])[2].strip()
    if value:
        names += f" `{value}`"
    return f"| {names} | {_cell(said)} |".replace("`|", "`\\|")


def _cell(text: str) -> str:
    return (
        " ".join(text.split())
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
        .replace("[", "\\[")
    )
