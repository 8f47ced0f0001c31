"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from aang_cli import completion, render
from aang_core.registry.registry import Registry, load_registry

PATH = click.Path(path_type=Path)


def _names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """``"a, b"`` → ("a", "b")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
plugins = click.option(
    "--plugins",
    metavar="A,B",
    default="",
    callback=_names,
    help="Load only these plugins (also AANG_PLUGINS).  [default: all]",
)
with_ = click.option(
    "--with",
    "with_",
    metavar="PRIMITIVE",
    multiple=True,
    shell_complete=completion.primitives,
    help="Add a primitive to its stage in every block of the space; repeatable.",
)
external = click.option(
    "--external",
    metavar="NAME=FILE",
    multiple=True,
    help="A corpus for a data source, such as in-domain=texts.txt; repeatable.",
)
aux_tasks = click.option(
    "--aux-task",
    "aux_tasks",
    metavar="TASK",
    multiple=True,
    help="A further labelled task, the data source aux:NAME; repeatable.",
)
drop_empty = click.option(
    "--drop-empty",
    is_flag=True,
    default=None,
    help="Leave out rows with an empty text or label, instead of refusing the task.",
)


def assignments(example: str) -> Callable[[Any], Any]:
    """The option ``--set``, whose values are the parameter `assignments`."""
    return click.option(
        "--set",
        "assignments",
        metavar="KEY=VALUE",
        multiple=True,
        help=f"Any setting, such as {example}; repeatable.",
    )


def registry_of(plugins: Iterable[str]) -> Registry:
    """The registry of the allowed plugins, all where none is named; those that fail to import are remarked upon."""
    registry = load_registry(frozenset(plugins) or None)
    for failure in registry.failed:
        render.remark(f"warning: {failure}")
    return registry


def corpora(external: Iterable[str]) -> dict[str, str]:
    """``("in-domain=a.txt",)`` → {"in-domain": "a.txt"}.

    :raises click.BadParameter: where one is not NAME=FILE, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in external:
        name, equals, where = text.partition("=")
        if not (name and equals and where):
            raise click.BadParameter(f"expected NAME=FILE (got {text!r})", param_hint="--external")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", param_hint="--external")
        found[name] = where
    return found
