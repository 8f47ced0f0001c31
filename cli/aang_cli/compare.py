"""``aang compare``: compare finished runs, and say what their seeds and costs can show."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aang_cli import options, render
from aang_core.markdown import interval_of, markdown_table, mean_and_std, p_value_of

if TYPE_CHECKING:
    from aang_core.analysis.compare import Comparison

_FIGURES = ("mean", "std", "delta", "p_value")


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=options.PATH, metavar="RUN...")
@options.as_json
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
@options.path("--csv", "FILE", "Also write a CSV file.", name="csv_file")
def command(runs: tuple[Path, ...], as_json: bool, markdown: bool, csv_file: Path | None) -> None:
    """Compare finished runs over the same seeds.

    The first RUN is the baseline.

    \b
    Example:
      aang compare runs/finetune runs/static runs/aang --markdown
    """
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    from aang_core.analysis.compare import compare_runs
    from aang_core.rundir.finished import read_runs

    found = compare_runs(read_runs(runs))
    if csv_file is not None:
        _write_csv(csv_file, found)
    if as_json:
        render.document(found.rows)
    else:
        cells = [_cells(row, metric) for row in found.rows for metric in row["metrics"]]
        title = f"{found.split} scores, baseline {found.rows[0]['run']}"
        if markdown:
            click.echo(markdown_table(cells))
        else:
            render.table(cells, columns=list(cells[0]), title=title)
    for remark in found.remarks:
        render.remark(f"note: {remark}")


def _cells(row: Mapping[str, Any], metric: str) -> dict[str, str]:
    """One run under one metric, for people; the one that comes first has a star."""
    own = metric == row["metric"]
    figures = row["metrics"][metric]
    unseen = row["deduplicated"] if own else None
    return {
        "run": row["run"] if own or len(row["metrics"]) == 1 else "",
        "method": row["method"] if own else "",
        "metric": metric + ("*" if own else ""),
        "mean ± std": mean_and_std(figures),
        "unseen only": mean_and_std(unseen),
        "per seed": " ".join(f"{seed}:{score:.4f}" for seed, score in figures["values"].items()),
        "Δ": f"{figures['delta']:+.4f}" if figures["detectable"] else "",
        "p": p_value_of(figures["p_value"]),
        "95 %": interval_of(figures["interval"]),
        "could show": _detectable(figures["detectable"]),
        "tokens": f"{row['tokens']:,.0f}" if own else "",
        "seconds": f"{row['seconds']:,.0f}" if own else "",
    }


def _detectable(found: Mapping[str, float | None] | None) -> str:
    """The smallest difference that the study could have shown; by seeds alone where texts cannot be judged."""
    if found is None:
        return ""
    value = next(
        (v for v in (found["both"], found["seeds"], found["texts"]) if v is not None), None
    )
    return "" if value is None else f"{value:.4f}"


def _write_csv(path: Path, found: Comparison) -> None:
    """A line a run and metric, with a column a seed."""
    seeds = list(found.rows[0]["values"])
    head = ["run", "method", "space", "model", "split", "metric", *_FIGURES]
    head += [
        "interval_low",
        "interval_high",
        "detectable",
        "deduplicated_mean",
        "tokens",
        "seconds",
    ]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*head, *(f"seed_{seed}" for seed in seeds)])
    for row in found.rows:
        for metric, figures in row["metrics"].items():
            unseen = row["deduplicated"] if metric == row["metric"] else None
            line = [row[name] for name in ("run", "method", "space", "model", "split")]
            line += [metric, *(figures[name] for name in _FIGURES)]
            line += figures["interval"] or [None, None]
            line += [(figures["detectable"] or {}).get("both"), (unseen or {}).get("mean")]
            line += [row["tokens"], row["seconds"], *(figures["values"][seed] for seed in seeds)]
            table.writerow(line)
    render.written(path, text.getvalue())
