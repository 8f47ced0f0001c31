"""``aang select``: rank the examples of other tasks by how useful they are for a target."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render
from aang_core.selection.settings import SelectionConfig

if TYPE_CHECKING:
    from aang_core.data.auxiliary import Selection

_OF_SELECTORS = {"options.epochs": "--epochs", "options.like": "--like"}
"""Options of single selectors that have a flag: their key, and the flag."""

SETTINGS = options.settings_of(SelectionConfig, without=("plugins",))


@click.command("select")
@options.of(SETTINGS)
@options.number("--epochs", "Epochs of a discriminator's training.  [default: 5]")
@click.option("--like", metavar="DIR", help="The selection whose tasks random-matched takes.")
@options.assignments("options.lr=5e-5")
@options.path("--out", "DIR", "The selection's directory.  [default: a new one under selections/]")
@options.path(
    "--experiment",
    "SPEC",
    "Carry out the whole study that this TOML file describes, controls and training included.",
)
@click.option("--resume", is_flag=True, help="Continue the interrupted selection in --out.")
@options.loudness
@options.as_json
@options.plugins
def command(
    assignments: tuple[str, ...],
    out: Path | None,
    experiment: Path | None,
    resume: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Rank other tasks' examples by usefulness for a target.

    Lines of text files are ranked beside them. Writes selection.jsonl (every row with score and rank, the best
    first), summary.json and a picture.

    \b
    Example:
      aang select --target my_task/ --from other_task/ --from texts.txt --out chosen
      aang select --target my_task/ --from other_task/ --selector gradient --top 500
      aang select --resume --out chosen
      aang select --experiment study.toml --out runs/study
    """
    if experiment is not None:
        _study(experiment, out, resume, as_json, given, assignments)
        return
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the directory of the interrupted selection")
    flags = _flags(given)
    config = _config(out if resume else None, flags, assignments)
    selection = _selected(config, out, resume)
    if as_json:
        render.document(selection.summary)
    else:
        _print(selection)


def _study(
    spec: Path,
    out: Path | None,
    resume: bool,
    as_json: bool,
    given: Mapping[str, Any],
    assignments: tuple[str, ...],
) -> None:
    """A whole experiment; its file says everything else."""
    others = [flag for key, (_, flag) in _flags(given).items() if key != "plugins"]
    others += ["--set"] if assignments else []
    if others:
        raise click.UsageError(
            f"--experiment takes its settings from its file; leave out {', '.join(others)}"
        )
    if out is None:
        raise click.UsageError("--experiment needs --out, the directory of its runs and results")
    from aang_cli.progress import ExperimentBar, Interruption
    from aang_core.study.selected.experiment import run_experiment

    again = shlex.join(["aang", "select", "--experiment", str(spec), "--out", str(out), "--resume"])
    goodbye = f"interrupted; go on with\n  {again}"
    registry = options.registry_of(given["plugins"])
    interruption = Interruption()
    bar = ExperimentBar(interruption)
    with interruption.ending(lambda _: goodbye), bar:
        results = run_experiment(spec, out, registry, resume, bar)
    if as_json:
        render.document(results)
    else:
        _print_study(results)
        render.remark(f"everything is in {out / 'results.md'} and results.json")


def _print_study(results: Mapping[str, Any]) -> None:
    from aang_core.study.results import arm_cells

    for name in results["targets"]:
        rows = [row for row in results["rows"] if row["target"] == name]
        cells = [arm_cells(row) for row in rows]
        render.table(cells, columns=list(cells[0]), title=f"{name}, {rows[0]['metric']}")
    for remark in results["remarks"]:
        render.remark(f"note: {remark}")


def _flags(given: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """The flags that were given, by dotted key of the settings."""
    flags = options.given_flags(SETTINGS, given)
    for key, flag in _OF_SELECTORS.items():
        if given[flag.removeprefix("--")] is not None:
            flags[key] = (given[flag.removeprefix("--")], flag)
    return flags


def _config(
    begun: Path | None, flags: Mapping[str, tuple[Any, str]], assignments: tuple[str, ...]
) -> SelectionConfig:
    """Flags over the settings of the selection that was begun in a directory, if any; `select` refuses what differs."""
    from aang_core.config.file import overlaid, parse_settings
    from aang_core.selection.directory import begun_with
    from aang_core.selection.settings import plain_settings

    base = plain_settings(begun_with(begun)) if begun else {}
    given = {**flags, **parse_settings(assignments, SelectionConfig)}
    return SelectionConfig.from_mapping(*overlaid(base, {}, given))


def _selected(config: SelectionConfig, out: Path | None, resume: bool) -> Selection:
    from aang_cli.progress import Interruption, ProgressBar
    from aang_core.selection.job import select

    registry = options.registry_of(config.plugins)
    interruption = Interruption()
    bar = ProgressBar(interruption)
    with interruption.ending(lambda _: _goodbye(bar.directory)), bar:
        return select(
            config,
            out=out,
            resume=resume,
            progress=bar.on_preparation,
            remark=bar.on_remark,
            begun=bar.on_begin,
            registry=registry,
        )


def _goodbye(directory: Path | None) -> str:
    """What an interrupted selection says last: how to go on."""
    if directory is None:
        return "interrupted; nothing had begun"
    again = f"aang select --resume --out {shlex.quote(str(directory))}"
    return f"interrupted; what is scored is kept, go on with\n  {again}"


def _print(selection: Selection) -> None:
    summary = selection.summary
    rows = [
        {**row, "share_of_top": f"{row['share_of_top']:.1%}", "leaks": len(row["leaks"])}
        for row in summary["tasks"]
    ]
    render.table(
        rows,
        columns=("task", "rows", "trained_on", "leaks", "ranked", "in_top", "share_of_top"),
        title=f"The {summary['top']} best of {summary['ranked']} rows for {summary['target']} ({summary['selector']})",
    )
    render.remark(f"every row with its rank: {selection.directory / 'selection.jsonl'}")
    picture = selection.directory / "tsne.svg"
    if picture.is_file():
        render.remark(f"the tasks in a picture: {picture}")
