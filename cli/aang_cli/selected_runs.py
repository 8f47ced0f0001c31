"""``aang run --selection`` with several --top or with controls: one run for each, and a table over all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render
from aang_core.markdown import mean_and_std, p_value_of
from aang_core.selection.settings import CONTROLS

if TYPE_CHECKING:
    from aang_core.config.settings import RunConfig

SHUFFLED = "shuffled"
"""The control that needs no selection."""

_COLUMNS = ("run", "score", "Δ", "p", "tokens", "seconds")


def flags(command: Any) -> Any:
    """The options of a selection, for a command."""
    first = options.number(
        "--top",
        "Train on so many of the selection's best; repeatable: a run for each, below --out.",
        1,
        name="tops",
        multiple=True,
    )
    second = click.option(
        "--control",
        "controls",
        type=click.Choice((*CONTROLS, SHUFFLED)),
        multiple=True,
        help="Also train this, to compare; repeatable. shuffled goes with a --rule that learns weights: the "
        "same run with its weights shuffled among the objectives, into OUT-shuffled.",
    )
    return first(second(command))


def folder(controls: Sequence[str], out: Path | None, alone: bool) -> Path:
    """The folder of several runs.

    :param alone: whether a flag was given that goes with a single run only.
    :raises click.UsageError: where it is missing, or flags exclude each other.
    """
    what = _asked(controls)
    if alone:
        raise click.UsageError(f"{what} and --dry-run or --processes exclude each other")
    if out is None:
        raise click.UsageError(f"{what} needs --out, the folder of the runs")
    return out


def _asked(controls: Sequence[str]) -> str:
    """Which flag asks for more than one run."""
    return "--control" if controls else "several --top"


def carry_out(
    config: RunConfig,
    tops: Sequence[int],
    controls: Sequence[str],
    out: Path,
    resume: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Train all of them and print the comparison; `config` is that of one.

    :raises click.UsageError: where no selection is named.
    """
    from aang_cli.progress import Interruption, bar_for
    from aang_core.study.selected.selections import run_selected

    if not config.selection or not config.top:
        raise click.UsageError(f"{_asked(controls)} needs --selection DIR and --top N")
    registry = options.registry_of(config.plugins)
    interruption = Interruption()
    goodbye = "interrupted; go on with the same command and --resume"
    bar = bar_for(jobs, config, interruption)
    with interruption.ending(lambda _: goodbye), bar:
        found = run_selected(
            config, tops, controls, out, registry, resume=resume, jobs=jobs, callback=bar
        )
    if as_json:
        render.document(found.rows)
    else:
        rows = [
            {
                "run": row["run"],
                "score": mean_and_std(row),
                "Δ": f"{row['delta']:+.4f}" if number else "",
                "p": p_value_of(row["p_value"]),
                "tokens": f"{row['tokens']:,.0f}",
                "seconds": f"{row['seconds']:,.1f}",
            }
            for number, row in enumerate(found.rows)
        ]
        title = f"{found.split} {found.metric}; Δ against {found.rows[0]['run']}"
        render.table(rows, columns=_COLUMNS, title=title)
    for remark in found.remarks:
        render.remark(f"note: {remark}")
