"""``aang submission``: the test predictions of finished runs as one archive in GLUE's format."""

from __future__ import annotations

from pathlib import Path

import click

from aang_cli import options, render


@click.command("submission")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The new .zip file to write."
)
@click.option("--seed", type=int, help="Whose predictions.  [default: the seed best on dev]")
@options.as_json
def command(runs: tuple[Path, ...], out: Path, seed: int | None, as_json: bool) -> None:
    """Pack the test predictions of RUNs, one a task, in the submission format of GLUE.

    The archive holds a file such as RTE.tsv for each task that a RUN has predicted, and nothing else.

    \b
    Example:
      aang submission runs/rte runs/mrpc --out submission.zip
    """
    from aang_core.finished_runs import read_runs
    from aang_core.submission import sheets, write_submission

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
