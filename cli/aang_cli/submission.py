"""``aang submission``: the test predictions of finished runs as one archive in GLUE's format."""

from __future__ import annotations

from pathlib import Path

import click

from aang_cli import options, render


@click.command("submission")
@click.argument("runs", nargs=-1, required=True, type=options.PATH, metavar="RUN...")
@options.path("--out", "FILE", "The new .zip file to write.", required=True)
@options.number("--seed", "The seed whose predictions are taken.  [default: the best on dev]")
@options.as_json
def command(runs: tuple[Path, ...], out: Path, seed: int | None, as_json: bool) -> None:
    """Pack test predictions in the submission format of GLUE.

    Give one RUN for each task. The archive holds a file such as RTE.tsv for each that has predictions, and nothing
    else.

    \b
    Example:
      aang submission runs/rte runs/mrpc --out submission.zip
    """
    from aang_core.analysis.submission import sheets, write_submission
    from aang_core.rundir.finished import read_runs

    found = sheets(read_runs(runs), seed)
    write_submission(found, out)
    rows = [
        {
            "file": sheet.name,
            "task": sheet.task,
            "run": str(sheet.run),
            "seed": sheet.seed,
            "rows": sheet.rows,
        }
        for sheet in found
    ]
    columns = ("file", "task", "run", "seed", "rows")
    render.rows(rows, columns=columns, title=f"Files in {out}", as_json=as_json)
