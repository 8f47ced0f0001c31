"""``aang run --folds K``: cross-validation over the labelled rows, and a final model from all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render

if TYPE_CHECKING:
    from aang_core.config.settings import RunConfig


def flags(command: Any) -> Any:
    """The options of a cross-validation, for a command."""
    first = options.number(
        "--folds",
        "Cross-validate, for few labels: K runs below --out test each labelled row once; with one score over all rows, "
        "and a final model trained on all of them.",
        2,
        metavar="K",
    )
    second = click.option(
        "--final/--no-final",
        default=True,
        help="With --folds: whether to train the final model.  [default: yes]",
    )
    return first(second(command))


def carry_out(
    config: RunConfig, folds: int, final: bool, out: Path, resume: bool, jobs: int, as_json: bool
) -> None:
    """Train all folds and the final model, and print the pooled score."""
    from aang_cli.progress import Interruption, ProgressBar, SweepBar
    from aang_core.study.folds import cross_validate

    registry = options.registry_of(config.plugins)
    interruption = Interruption()
    goodbye = "interrupted; go on with the same command and --resume"
    with interruption.ending(lambda _: goodbye):
        bar = SweepBar() if jobs > 1 else ProgressBar(interruption)
        with bar:
            found = cross_validate(
                config, folds, out, registry, final=final, resume=resume, jobs=jobs, callback=bar
            )
    if as_json:
        render.document(found)
        return
    rows = [
        {
            "fold": str(fold["fold"]),
            "rows": fold["rows"],
            "score": f"{fold['score']:.4f}",
            "best_step": ", ".join(map(str, fold["best_step"])),
        }
        for fold in found["folds"]
    ]
    title = f"{folds} folds of {found['task']}, {found['metric']}"
    render.table(rows, columns=("fold", "rows", "score", "best_step"), title=title)
    if model := found["final"]:
        click.echo(f"model {Path(model['directory']) / 'model'}")
        click.echo(
            f"it is trained on all rows for {model['steps']} steps, as the folds chose, and has no test score"
        )
    click.echo(found["said"])
