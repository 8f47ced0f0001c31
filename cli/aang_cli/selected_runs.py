"""``aang run --selection`` with several --top or with controls: a run each, and one table over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render

if TYPE_CHECKING:
    from aang_core.config import RunConfig

_COLUMNS = ("run", "score", "Δ", "p", "tokens", "seconds")

_FLAGS = (
    click.option(
        "--selection",
        metavar="DIR",
        help="Train on the best examples that aang select has found.",
    ),
    click.option(
        "--top",
        "tops",
        metavar="N",
        type=click.IntRange(1),
        multiple=True,
        help="How many of them; several for a run each, below --out.",
    ),
    click.option(
        "--control",
        "controls",
        type=click.Choice(("none", "random", "random-matched", "full")),
        multiple=True,
        help="Train this beside it, to compare; repeatable.",
    ),
)


def flags(command: Any) -> Any:
    """The options of a selection, for a command."""
    for option in reversed(_FLAGS):
        command = option(command)
    return command


def configured(
    config: Path | None,
    given: Mapping[str, tuple[Any, str]],
    assignments: Sequence[str],
    controls: Sequence[str],
    out: Path | None,
    whole: bool,
) -> RunConfig:
    """The configuration of one of several runs.

    :param whole: whether each is to be trained, in one process.
    :raises click.UsageError: where flags are missing or exclude each other.
    """
    from aang_core.config_file import build_config

    what = "--control" if controls else "several --top"
    if not whole:
        raise click.UsageError(f"{what} and --dry-run or --processes exclude each other")
    if out is None:
        raise click.UsageError(f"{what} needs --out, the folder of the runs")
    chosen = build_config(config, given, assignments)
    if not chosen.selection or not chosen.top:
        raise click.UsageError(f"{what} needs --selection DIR and --top N")
    return chosen


def carry_out(
    config: RunConfig,
    tops: Sequence[int],
    controls: Sequence[str],
    out: Path,
    resume: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Train all of them and print the comparison; `config` is that of one."""
    from aang_cli.interruption import Interruption
    from aang_cli.progress_bar import ProgressBar
    from aang_core.progress import Stopped
    from aang_core.selection.selected_runs import run_selected

    registry = options.registry_of(",".join(config.plugins))
    interruption = Interruption()
    bar = ProgressBar(len(config.seeds), interruption)
    try:
        with interruption, bar:
            found = run_selected(
                config, tops, controls, out, registry, resume=resume, jobs=jobs, watcher=bar
            )
    except (KeyboardInterrupt, Stopped):
        click.echo("interrupted; go on with the same command and --resume", err=True)
        raise click.exceptions.Exit(interruption.exit_code) from None
    if as_json:
        render.document(found.rows)
    else:
        rows = [
            {
                "run": row["run"],
                "score": f"{row['mean']:.4f}" + (f" ± {row['std']:.4f}" if row["std"] else ""),
                "Δ": f"{row['delta']:+.4f}" if number else "",
                "p": "" if row["p_value"] is None else f"{row['p_value']:.3f}",
                "tokens": f"{row['tokens']:,.0f}",
                "seconds": f"{row['seconds']:,.1f}",
            }
            for number, row in enumerate(found.rows)
        ]
        title = f"{found.split} {found.metric}; Δ against {found.rows[0]['run']}"
        render.table(rows, columns=_COLUMNS, title=title)
    for remark in found.remarks:
        render.remark(f"note: {remark}")
