"""``aang predict``: predict a file of texts with a finished run's model."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render

if TYPE_CHECKING:
    from aang_core.data.readers import Table

_SHOWN = 60
_BETWEEN = {".csv": ",", ".tsv": "\t"}
"""What stands between the cells of a file, by its suffix."""


@click.command("predict")
@click.argument("run", type=options.PATH)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@options.number(
    "--seed", "The seed whose model is used, in a run of several.  [default: the first]"
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Write to this new file instead: .csv or .tsv, the given columns with label and probability; else jsonl; "
    "- for jsonl on standard output.",
)
@click.option(
    "--device", metavar="DEVICE", default="auto", show_default=True, help="auto, cpu or cuda."
)
@click.option(
    "--drop-empty", is_flag=True, help="Leave out rows with an empty text, and say which."
)
@options.as_json
@options.plugins
def command(
    run: Path,
    file: Path,
    seed: int | None,
    out: Path | None,
    device: str,
    drop_empty: bool,
    as_json: bool,
    plugins: tuple[str, ...],
) -> None:
    """Label the texts in FILE with the model of RUN.

    FILE holds one text a line, or is jsonl, csv, tsv or parquet with the columns of the run's task, or of a kind that
    its encoder reads (.npy for images); - reads lines from standard input.

    \b
    Example:
      aang predict runs/my_task texts.txt --json
      aang predict runs/my_task tickets.csv --out labels.csv
      echo "A sentence." | aang predict runs/my_task - --out - | jq .label
    """
    from aang_core.errors import RunError
    from aang_core.train.finish.export import answers, chosen_model, read_examples, read_texts

    if as_json and out is not None:
        raise click.UsageError("--json and --out exclude each other")
    if out is not None and out.exists():
        raise RunError(f"{out} exists already; choose another --out")
    found = chosen_model(run, options.registry_of(plugins), seed)
    if seed is None and len(found.seeds) > 1:
        others = ", ".join(map(str, found.seeds))
        render.remark(f"the model of seed {found.seed} answers; --seed chooses among {others}")
    if str(file) == "-":
        table, examples = read_texts(found, sys.stdin.buffer.read(), "standard input")
    else:
        table, examples = read_examples(found, file, drop_empty)
    for remark in table.remarks:
        render.remark(remark)
    rows = list(answers(found, table, examples, device))
    if out is not None:
        _write(out, table, rows)
    elif as_json:
        render.document(rows)
    else:
        column = found.reads[0]
        _table(rows, column, [str(example[column]) for example in examples])


def _write(out: Path, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """The answers as a file of the kind that its name says, or as lines on standard output."""
    from aang_core.train.finish.export import labelled_table

    if out.suffix.lower() in _BETWEEN:
        found = labelled_table(table, rows)
        written = io.StringIO()
        sheet = csv.DictWriter(
            written, list(found[0]), delimiter=_BETWEEN[out.suffix.lower()], lineterminator="\n"
        )
        sheet.writeheader()
        sheet.writerows(found)
        text = written.getvalue()
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if str(out) == "-":
        click.echo(text, nl=False)
        return
    render.written(out, text)
    render.remark(f"{len(rows)} answers in {out}")


def _table(rows: Sequence[Mapping[str, Any]], column: str, texts: Sequence[str]) -> None:
    """Answers beside the beginning of their texts (images, …), under the name of their column."""
    shown = [
        {
            "line": row["line"],
            "answer": _answer(row),
            "probability": _chance(row),
            column: _short(text),
        }
        for row, text in zip(rows, texts, strict=True)
    ]
    render.table(shown, columns=("line", "answer", "probability", column), title="Answers")


def _answer(row: Mapping[str, Any]) -> str:
    if "value" in row:
        return f"{row['value']:.4f}"
    return str(row["label"]) if "label" in row else ", ".join(row["labels"])


def _chance(row: Mapping[str, Any]) -> str:
    return f"{row['probabilities'][row['label']]:.4f}" if "label" in row else ""


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
