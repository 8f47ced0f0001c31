"""The commands ``aang list-*``: objectives, primitives, selectors, weightings and spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from aang_cli import completion, options, render
from aang_core.registry.records import STAGES

if TYPE_CHECKING:
    from aang_core.registry.legality import Illegal, Verdict
    from aang_core.registry.records import Space
    from aang_core.registry.registry import Registered, Registry


@click.command("list-objectives")
@click.option(
    "--space",
    metavar="SPACE",
    default="td+ed",
    show_default=True,
    shell_complete=completion.spaces,
    help="A space's name or TOML file.",
)
@click.option(
    "--task", metavar="TASK", default="", help="Resolve what depends on the data of this task."
)
@click.option(
    "--model", metavar="MODEL", default="", help="Resolve what depends on the kind of encoder."
)
@options.with_
@options.reading
@options.teacher_model
@click.option(
    "--illegal", is_flag=True, help="List the illegal combinations instead, with the reasons."
)
@options.as_json
@options.plugins
def objectives(
    space: str,
    task: str,
    model: str,
    with_: tuple[str, ...],
    teacher_model: str | None,
    illegal: bool,
    as_json: bool,
    plugins: tuple[str, ...],
    **given: Any,
) -> None:
    """List the legal objectives of a space.

    An objective is one choice each of data, transform, representation and output. With --task, each is tried on some
    rows of the task, with a warning if it teaches nothing (its target is in sight, or always the same).

    \b
    Example:
      aang list-objectives --space td --with span-mask
      aang list-objectives --space td+ed --illegal --json
      aang list-objectives --space distil --task my_task/ --teacher-model runs/large
    """
    from aang_core.registry.legality import Illegal, Legal, legal_objectives, objective_rows
    from aang_core.registry.spaces import resolve_space

    flags = options.given_flags(options.READING, given)
    if not task and (flags or teacher_model):
        named = " and ".join(flag for _, flag in flags.values()) or "--teacher-model"
        says = "it says how a task is read" if flags else "its classes are those of a task"
        raise click.UsageError(f"{named} needs --task: {says}")
    reading = {key: value for key, (value, _) in flags.items()}
    registry = options.registry_of(plugins)
    resolved = resolve_space(space, registry, with_)
    verdicts = _judged(resolved, registry, task, model, reading, teacher_model or "")
    warnings: dict[str, list[str]] = {}
    if task:
        run = {"task": task, "model": model, "teacher_model": teacher_model or "", **reading}
        warnings, unfit = _tried(resolved, registry, run)
        judged = [(v.objective, unfit.get(v.objective.id), v) for v in verdicts]
        verdicts = [Illegal(objective, why) if why else v for objective, why, v in judged]
    if not illegal:
        legal_objectives(verdicts, resolved)  # a space without any is an error, not an empty list
    chosen = [v for v in verdicts if isinstance(v, Legal) is not illegal]
    found = objective_rows(chosen, registry)
    render.rows(
        [{**row, "warnings": warnings.get(row["id"], [])} for row in found],
        columns=("id", "reason") if illegal else ("id", "needs", "named", "warnings"),
        title=f"{'Illegal' if illegal else 'Legal'} objectives of {resolved.name}",
        as_json=as_json,
    )
    render.remark(_remark(len(chosen), len(verdicts), illegal))


def _judged(
    space: Space,
    registry: Registry,
    task: str,
    model: str,
    reading: Mapping[str, Any],
    teacher_model: str,
) -> Sequence[Verdict]:
    """The verdicts; with a task, after its data has said what it provides. What asks for a teacher is open without."""
    from aang_core.registry.legality import enumerate_objectives, sources_of

    kind = registry.backbone_for(model) if model or task else None
    abilities = kind.capabilities if kind and model else None
    if not task or kind is None:
        return enumerate_objectives(space, registry, backbone_capabilities=abilities)
    from aang_core.batch.binding import bind_sources
    from aang_core.batch.protocols import Binding
    from aang_core.config.settings import RunConfig
    from aang_core.data.task import load_task, registered_tasks
    from aang_core.registry.options import check_corpora

    check_corpora(reading.get("external", {}), registry)
    loaded = load_task(
        task, reads=kind.reads, registered=registered_tasks(registry), **{"external": {}, **reading}
    )
    bound, missing = bind_sources(
        sources_of(space), registry, Binding(task=loaded, backbone=None, options={}), {}
    )
    return enumerate_objectives(
        space,
        registry,
        provided={name: source.provides for name, source in bound.items()},
        unavailable=missing,
        backbone_capabilities=abilities,
        task_capabilities=loaded.capabilities,
        run_capabilities=RunConfig(teacher_model=teacher_model).capabilities or None,
    )


def _tried(
    space: Space, registry: Registry, settings: Mapping[str, Any]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """By objective id, what is wrong with it on real rows of the task, and why it cannot do with the task at all.

    Both are empty, with a remark, where that stays unknown: a listing is still of use where the encoder is missing.

    :param settings: of the run, by key.
    """
    from aang_cli.progress import ProgressBar
    from aang_core.check.sanity import warnings_of
    from aang_core.config.settings import RunConfig
    from aang_core.errors import AangError

    config = RunConfig.from_mapping(settings)
    warnings: dict[str, list[str]] = {}
    unfit: list[Illegal] = []
    try:
        bar = ProgressBar()
        with bar:
            warnings = warnings_of(
                config, space, registry, progress=bar.on_preparation, rejected=unfit.append
            )
    except AangError as cause:
        render.remark(f"what is wrong with single objectives is not known: {cause}")
    return warnings, {verdict.objective.id: verdict.reason for verdict in unfit}


def _remark(shown: int, total: int, illegal: bool) -> str:
    if illegal:
        return f"{shown} of {total} combinations are illegal"
    rest = total - shown
    hint = f"; --illegal shows the other {rest} and why" if rest else ""
    return f"{shown} of {total} combinations are legal{hint}"


@click.command("list-primitives")
@click.option("--stage", type=click.Choice(STAGES), help="Only this stage.  [default: all]")
@options.as_json
@options.plugins
def primitives(stage: str | None, as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the installed primitives.

    An objective is made of one of each stage.

    \b
    Example:
      aang list-primitives --stage transform
    """
    found = [
        {
            "name": name,
            "stage": entry.stage,
            "summary": entry.record.summary,
            **attrs.asdict(entry.provenance),
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


@click.command("list-selectors")
@options.as_json
@options.plugins
def selectors(as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the installed selectors.

    Each is a way in which `aang select` can rank the examples of other tasks.

    \b
    Example:
      aang list-selectors
    """
    _records(options.registry_of(plugins).selectors, "Selectors", as_json)


@click.command("list-weightings")
@options.as_json
@options.plugins
def weightings(as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the installed weighting rules.

    Each is a way in which the weights of objectives learn: `aang run --rule` chooses one.

    \b
    Example:
      aang list-weightings
      aang run --rule confident
    """
    _records(options.registry_of(plugins).weightings, "Weighting rules", as_json)


def _records(entries: Mapping[str, Registered[Any]], title: str, as_json: bool) -> None:
    """Records that have options and a source, and nothing else to show."""
    found = [
        {
            "name": name,
            "summary": entry.record.summary,
            **attrs.asdict(entry.provenance),
            "options": dict(entry.record.options),
            "source": entry.record.source,
        }
        for name, entry in entries.items()
    ]
    columns = ("name", "summary", "plugin", "version")
    render.rows(found, columns=columns, title=title, as_json=as_json)


@click.command("list-spaces")
@options.as_json
@options.plugins
def spaces(as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the named spaces and how many objectives each has.

    \b
    Example:
      aang list-spaces
    """
    registry = options.registry_of(plugins)
    found = [_space_row(name, registry) for name in registry.spaces]
    columns = ("name", "summary", "legal", "combinations", "plugin", "version", "error")
    render.rows(found, columns=columns, title="Spaces", as_json=as_json)


def _space_row(name: str, registry: Registry) -> dict[str, Any]:
    """One space; `error` says why it cannot be used, as where a plugin that it draws on is missing."""
    from aang_core.errors import ConfigError
    from aang_core.registry.legality import Legal, enumerate_objectives
    from aang_core.registry.spaces import resolve_space

    entry = registry.spaces[name]
    legal = combinations = None
    error = ""
    try:
        verdicts = enumerate_objectives(resolve_space(name, registry), registry)
        legal = sum(isinstance(verdict, Legal) for verdict in verdicts)
        combinations = len(verdicts)
    except ConfigError as cause:
        error = str(cause)
    return {
        "name": name,
        "summary": entry.record.summary,
        "legal": legal,
        "combinations": combinations,
        **attrs.asdict(entry.provenance),
        "source": entry.record.source,
        "optional": sorted(entry.record.optional),
        "blocks": [attrs.asdict(block) for block in entry.record.blocks],
        "error": error,
    }
