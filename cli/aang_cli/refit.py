"""``aang refit``: train a finished run's seeds once more, on the labels of train and dev."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from aang_cli import options, render


@click.command("refit")
@click.argument("run", metavar="RUN", type=options.PATH)
@options.path("--out", "DIR", "The new run's directory.  [default: RUN-refit]")
@click.option("--resume", is_flag=True, help="Continue the interrupted one in --out.")
@options.loudness
@options.as_json
def command(run: Path, out: Path | None, resume: bool, as_json: bool) -> None:
    """Train a finished run once more, on train and dev.

    It takes the length and the weights that RUN has found, and does not repeat its search: the new run is what RUN
    would have been with training.refit = 'all'. Its model has seen dev, so dev does not estimate it any more.

    \b
    Example:
      aang run --task my_task/ --space td+ed --out runs/mine
      aang refit runs/mine
      aang compare runs/mine runs/mine-refit
    """
    from aang_cli.closing import show
    from aang_cli.progress import Interruption, ProgressBar
    from aang_core.study.run import beside
    from aang_core.study.run import run as train

    place = out or beside(run.resolve(), "refit")
    words = ["aang", "refit", str(run), "--out", str(place), "--resume"]
    goodbye = f"interrupted; go on with\n  {shlex.join(words)}"
    interruption = Interruption()
    bar = ProgressBar(interruption)
    with interruption.ending(lambda _: goodbye), bar:
        report = train(out=place, search=run, resume=resume, callbacks=bar)
    if as_json:
        render.document(report.as_mapping())
    else:
        show(report)
