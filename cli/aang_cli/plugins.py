"""``aang plugins``: what is installed and what could not be imported; ``aang plugins new``: a package to begin with."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import attrs
import click

from aang_cli import options, render
from aang_core.errors import AangError, PluginError, one_message
from aang_core.registry.records import STAGES

if TYPE_CHECKING:
    from aang_core.registry.discovery import FailedPlugin, Plugin
    from aang_core.registry.registry import Registry

PREFIX = "aang-"
LONGEST_NAME = 30  # with more, the generated lines would not keep within 100 columns
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

FILES: Mapping[str, str] = {
    "pyproject.toml": "common/pyproject.toml",
    "README.md": "common/README.md",
    "LICENSE": "common/LICENSE",
    ".gitignore": "common/gitignore",
    ".github/workflows/test.yml": "common/test.yml",
    "$package/__init__.py": "common/__init__.py",
    "$package/py.typed": "common/py.typed",
    "$package/hooks.py": "$stage/hooks.py",
    "$package/$module.py": "$stage/primitive.py",
    "tests/test_$module.py": "$stage/test.py",
}
"""File of a package → its template under ``templates/``, which has ``.in`` at its end."""


@attrs.frozen
class Kind:
    """What a stage's templates hold.

    :param kind: what people call a primitive of the stage, with its article.
    :param module: the file of its code; with a capital, the end of its class's name.
    :param numbers: what adding it to the space ``td`` brings.
    """

    kind: str
    module: str
    summary: str
    numbers: str


KINDS: Mapping[str, Kind] = {
    "data": Kind(
        "a data source",
        "source",
        "The task's texts, each cut in two",
        "`td` has 24 objectives; with the new source 40, since each of its 4 transforms and 4 representations meets it "
        "under\n`denoise`. It has no labels, so the end-task is illegal on it.",
    ),
    "transform": Kind(
        "a transform",
        "transform",
        "Let 15 % of a text's tokens change places",
        "`td` has 24 objectives; with the new transform 30: it meets each of 4 representations under `denoise`, and "
        "the\nend-task under the 2 that see a whole sequence.",
    ),
    "representation": Kind(
        "a representation",
        "rule",
        "Each position attends to those near it",
        "`td` has 24 objectives; with the new representation 28: each of 4 transforms under `denoise`. The end-task "
        "requires\n`representation:whole-sequence`, which it does not provide.",
    ),
    "output": Kind(
        "an output",
        "output",
        "Tell the tokens that stand more than once in their text",
        "`td` has 24 objectives; with the new output 40: each of 4 transforms under each of 4 representations.",
    ),
}
"""By stage, in the order of the stages."""


@click.group("plugins", invoke_without_command=True)
@options.as_json
@options.plugins
@click.pass_context
def command(ctx: click.Context, as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the installed plugins.

    Those that fail to import are listed too, with the cause.

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
        **attrs.asdict(plugin.provenance),
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


@attrs.frozen
class Scaffold:
    """One package to be. `name` is the primitive's and the plugin's."""

    name: str
    stage: str

    @property
    def distribution(self) -> str:
        """What ``pip`` calls it."""
        return PREFIX + self.name

    @property
    def package(self) -> str:
        """What Python imports."""
        return self.distribution.replace("-", "_")

    def files(self) -> dict[str, str]:
        """Every file of the package: its path within it, and its text."""
        kind = KINDS[self.stage]
        camel = "".join(part.capitalize() for part in self.name.split("-"))
        words = {
            **attrs.asdict(self),
            **attrs.asdict(kind),
            "distribution": self.distribution,
            "package": self.package,
            "Class": camel + kind.module.capitalize(),
        }
        return {
            Template(path).substitute(words): Template(_text(source, self.stage)).substitute(words)
            for path, source in FILES.items()
        }


def _text(source: str, stage: str) -> str:
    """The text of one template."""
    path = Template(source).substitute(stage=stage) + ".in"
    return files("aang_cli").joinpath("templates", *path.split("/")).read_text(encoding="utf-8")


def check(scaffold: Scaffold, out: Path, registry: Registry) -> None:
    """Whether a package of this name can be written to `out` and installed beside what is there.

    :raises PluginError: says everything that stands against it.
    """
    faults = [*_name_faults(scaffold.name), *_clashes(scaffold, registry)]
    if out.exists() or out.is_symlink():
        faults.append(f"{out} exists; give another folder with --out, which will be made")
    if faults:
        raise PluginError(one_message(faults, f"a plugin {scaffold.name!r} cannot be made"))


def _name_faults(name: str) -> list[str]:
    """What is wrong with a name whatever is installed."""
    faults = []
    if name.startswith(PREFIX):
        rest = name.removeprefix(PREFIX) or "NAME"
        faults.append(
            f"the distribution is called {PREFIX}NAME by itself; give {rest!r} (got {name!r})"
        )
    if not _NAME.fullmatch(name):
        faults.append(
            "expected a name in kebab-case, small letters and figures that begin with a letter, "
            f"such as 'span-mask' (got {name!r})"
        )
    if len(name) > LONGEST_NAME:
        faults.append(f"expected a name of at most {LONGEST_NAME} characters (got {len(name)})")
    return faults


def _clashes(scaffold: Scaffold, registry: Registry) -> list[str]:
    """Names that something installed has already."""
    faults = []
    name = scaffold.name
    held = registry.primitives.get(name)
    if held is not None:
        faults.append(
            f"the {held.stage} primitive {name!r} of {held.distribution} {held.version} is "
            "installed; give another name"
        )
    working = [plugin.provenance for plugin in registry.plugins]
    broken = [plugin.provenance for plugin in registry.failed]
    faults += [
        f"the plugin {origin} is installed; give another name"
        for origin in (*working, *broken)
        if origin.plugin == name
    ]
    if _NAME.fullmatch(name) and find_spec(scaffold.package) is not None:
        faults.append(f"a package {scaffold.package!r} can be imported already; give another name")
    return faults


def write(scaffold: Scaffold, out: Path) -> list[str]:
    """Write the package's files into the new folder `out`, all of them or none; returns their paths within it.

    :raises AangError: where the folder cannot be written.
    """
    made = scaffold.files()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".new-plugin-") as draft:
            whole = Path(draft) / "package"
            for path, text in made.items():
                place = whole / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text, encoding="utf-8")
            whole.rename(out)
    except OSError as cause:
        where = cause.filename or out
        raise AangError(
            f"the package cannot be written to {out} ({where}: {cause.strerror}); give a folder "
            "in a place that can be written with --out"
        ) from cause
    return sorted(made)
