"""``aang plugins new``: a plugin package to begin with, which passes its own tests."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from aang_cli import options, render
from aang_core.registry.records import STAGES


@click.command("new")
@click.argument("name")
@click.option(
    "--stage",
    type=click.Choice(STAGES),
    default="transform",
    show_default=True,
    help="What kind of primitive it brings.",
)
@click.option(
    "--out", metavar="DIR", type=options.PATH, help="The folder to make.  [default: aang-NAME]"
)
@options.as_json
def command(name: str, stage: str, out: Path | None, as_json: bool) -> None:
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
