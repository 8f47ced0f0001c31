"""Options that several commands share: those derived from the settings' records, and their values as settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from aang_cli import completion, render
from aang_core.config.fields import described
from aang_core.config.schema import Choice, Flag, Integer, ListOf, Number, Rule, TableOf, Text
from aang_core.config.settings import Meta, RunConfig, Shares, Training
from aang_core.registry.registry import Registry, load_registry

PATH = click.Path(path_type=Path)

_SHOWN: Mapping[str, Mapping[str, Any]] = {
    "space": {"shell_complete": completion.spaces},
    "with_": {"metavar": "PRIMITIVE", "shell_complete": completion.primitives},
    "external": {"metavar": "NAME=FILE[:COLUMN]"},
    "columns": {"metavar": "ROLE=COLUMN"},
    "aux_tasks": {"metavar": "TASK"},
    "from_": {"metavar": "TASK|FILE"},
    "log": {"metavar": "NAME"},
    "selection": {"metavar": "DIR"},
    "split_anew": {"metavar": "DEV TEST"},
    "target": {"metavar": "TASK"},
    "teacher_model": {"metavar": "RUN|MODEL"},
    "weights": {"metavar": "RUN|FILE"},
}
"""What no record says of a flag: how its value is called in the help, and how a shell completes it."""


@attrs.frozen
class Setting:
    """A setting that has a flag, derived from the record that holds it: a new one needs no line here.

    :param key: dotted, in the configuration. :param name: of the record's field, and of click's parameter.
    :param said: what the record's docstring says of it.
    """

    key: str
    name: str
    rule: Rule
    default: Any
    said: str

    @property
    def flag(self) -> str:
        """``--seed`` for `seeds`, of which each use of the flag gives one."""
        stem = self.name.rstrip("_")
        one = stem.removesuffix("s") if isinstance(self.rule, (ListOf, TableOf)) else stem
        return "--" + one.replace("_", "-")

    def option(self) -> Callable[[Any], Any]:
        """The click option; its value is None or empty where the flag is not given."""
        rule = self.rule
        shape: dict[str, Any]
        if isinstance(rule, Flag):
            shape = {"is_flag": True, "default": None}
        elif isinstance(rule, Shares):
            shape = {"nargs": rule.count, "type": float}
        elif isinstance(rule, (ListOf, TableOf)):
            inner = rule.item if isinstance(rule, ListOf) else rule.entry
            shape = {"multiple": True, **_shape(inner, self.flag)}
        else:
            shape = _shape(rule, self.flag)
        return click.option(
            self.flag, self.name, help=self._help(), **{**shape, **_SHOWN.get(self.name, {})}
        )

    def _help(self) -> str:
        several = isinstance(self.rule, (ListOf, TableOf))
        said = self.said.rstrip(".") + "; repeatable." if several else self.said
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        # a 0 that stands alone is explained by the docstring; in a list it is a value like any other
        known = ", ".join(str(value) for value in values if value or (several and value == 0))
        return f"{said}  [default: {known}]" if known else said


def _shape(rule: Rule, flag: str) -> dict[str, Any]:
    """Click's type of one value, and what the help calls it."""
    if isinstance(rule, Choice):
        return {"type": click.Choice(rule.options)}
    if isinstance(rule, Integer):
        return {"type": int, "metavar": "N"}
    if isinstance(rule, Number):
        return {"type": float, "metavar": "X"}
    return {"metavar": flag.removeprefix("--").upper().replace("-", "_")}


def settings_of(
    record: type, prefix: str = "", only: Sequence[str] = (), without: Sequence[str] = ()
) -> list[Setting]:
    """The settings of a record that can be a flag, in its order: all but its tables.

    :param prefix: of their keys. :param only: these alone, where any is named. :param without: all but these.
    """
    found = []
    for setting in described(record, prefix):
        name, rule = setting.field, setting.rule
        table = "." in setting.key.removeprefix(prefix)  # of a section
        table |= isinstance(rule, TableOf) and not isinstance(rule.entry, Text)
        if table or name in without or (only and name not in only):
            continue
        first = re.split(r"(?<=\.) (?=[A-Z])", setting.help)[0].replace("`", "")
        found.append(Setting(setting.key, name, rule, setting.default, first))
    return found


RUN = [
    *settings_of(RunConfig, without=("top", "plugins")),
    *settings_of(Training, "training.", only=("max_steps",)),
    *settings_of(Meta, "meta.", only=("rule",)),
]
"""The flags of ``aang run``; ``--top`` may be given several times there, and ``--plugins`` goes with every command."""


def of(settings: Sequence[Setting]) -> Callable[[Any], Any]:
    """The options of these settings, for a command."""

    def decorate(command: Any) -> Any:
        for setting in reversed(settings):
            command = setting.option()(command)
        return command

    return decorate


def given_flags(
    settings: Sequence[Setting], given: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    """Dotted key → (value, flag), of the flags that were given; ``--plugins`` goes with all."""
    found: dict[str, tuple[Any, str]] = {}
    for setting in settings:
        value = given[setting.name]
        if isinstance(setting.rule, TableOf):
            value = corpora(value, setting.flag)
        elif isinstance(setting.rule, (ListOf, Shares)):
            value = list(value or ())
        if value not in (None, [], {}):
            found[setting.key] = (value, setting.flag)
    if given.get("plugins"):
        found["plugins"] = (list(given["plugins"]), "--plugins")
    return found


def _names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """``"a, b"`` → ("a", "b")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def path(flag: str, metavar: str, said: str, **more: Any) -> Callable[[Any], Any]:
    """An option whose value is a file or folder; `name` in `more` is that of the parameter."""
    names = (flag, *filter(None, [more.pop("name", "")]))
    return click.option(*names, **{"metavar": metavar, "type": PATH, "help": said, **more})


def number(flag: str, said: str, least: int | None = None, **more: Any) -> Callable[[Any], Any]:
    """An option whose value is a whole number, likewise; a default is shown."""
    names = (flag, *filter(None, [more.pop("name", "")]))
    kind = int if least is None else click.IntRange(least)
    shown = {"metavar": "N", "type": kind, "show_default": "default" in more}
    return click.option(*names, **{**shown, "help": said, **more})


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
plugins = click.option(
    "--plugins",
    metavar="A,B",
    default="",
    callback=_names,
    help="Load only these plugins (also AANG_PLUGINS).  [default: all]",
)
with_, external, aux_tasks, teacher_model = (
    of([setting for setting in RUN if setting.name == name])
    for name in ("with_", "external", "aux_tasks", "teacher_model")
)
READING = [s for s in RUN if s.name in ("external", "columns", "drop_empty", "unlabelled")]
"""What says how a task is read; the flags of every command that reads one as ``aang run`` does."""
reading = of(READING)


def loudness(command: Any) -> Any:
    """``--quiet`` and ``--verbose``: how much a command tells on stderr beside its result (`render.loudness`)."""

    def note(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and render.LOUDNESS in ctx.meta:
            raise click.UsageError("--quiet and --verbose exclude each other", ctx)
        if value:
            ctx.meta[render.LOUDNESS] = parameter.name

    quiet = click.option(
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=note,
        help="Print results and errors: no remarks, no bars.",
    )
    verbose = click.option(
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=note,
        help="Print every remark of every seed, and all weights.",
    )
    return quiet(verbose(command))


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


def corpora(external: Iterable[str], flag: str = "--external") -> dict[str, str]:
    """``("in-domain=a.csv:message",)`` → {"in-domain": "a.csv:message"}, and other tables likewise.

    :raises click.BadParameter: where one is not NAME=FILE (ROLE=COLUMN), or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in external:
        name, equals, where = text.partition("=")
        if not (name and equals and where):
            form = "ROLE=COLUMN" if flag == "--column" else "NAME=FILE"
            raise click.BadParameter(f"expected {form} (got {text!r})", param_hint=flag)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", param_hint=flag)
        found[name] = where
    return found
