"""``aang compare``: compare finished runs, or sweeps over several tasks, and say what seeds and costs can show."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from aang_cli import options, render
from aang_core.markdown import interval_of, markdown_table, mean_and_std, one_line, p_value_of

if TYPE_CHECKING:
    from aang_core.analysis.compare import Comparison

_FIGURES = ("mean", "std", "delta", "p_value")


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=options.PATH, metavar="RUN...|SWEEP...")
@click.option(
    "--baseline",
    "baselines",
    metavar="NAME",
    multiple=True,
    help="Compare the configurations of sweeps with this one; of several, dev chooses for each task.",
)
@options.as_json
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
@options.path("--csv", "FILE", "Also write a CSV file.", name="csv_file")
@options.path("--plots", "DIR", "Also draw the gains over the baseline, as SVG and PNG.")
def command(
    runs: tuple[Path, ...],
    baselines: tuple[str, ...],
    as_json: bool,
    markdown: bool,
    csv_file: Path | None,
    plots: Path | None,
) -> None:
    """Compare finished runs, or sweeps over several tasks.

    Of runs, which have the same seeds, the first is the baseline. Of sweeps, --baseline names a
    configuration that they have.

    \b
    Example:
      aang compare runs/finetune runs/static runs/aang --markdown
      aang compare runs/trec runs/sst2 runs/banking --baseline finetune --plots plots/
    """
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    shown = _sweeps(runs, baselines) if baselines else _runs(runs, plots)
    if csv_file is not None:
        render.written(csv_file, shown.csv())
    if as_json:
        render.document(shown.document)
    else:
        _tables(shown.tables, markdown)
    for remark in shown.remarks:
        render.remark(f"note: {remark}")
    if plots is not None:
        from aang_core.analysis.page.plots import write_plots
        from aang_core.study.sweeps.gains_figure import gains_plot

        for file in write_plots([gains_plot(shown.document)], plots):
            render.remark(f"picture {file}")


@attrs.frozen(eq=False)
class _Shown:
    """A comparison as each form of output shows it. :param tables: title → rows."""

    document: Any
    tables: Mapping[str, Sequence[Mapping[str, str]]]
    remarks: Sequence[str]
    csv: Callable[[], str]


def _runs(runs: Sequence[Path], plots: Path | None) -> _Shown:
    if plots is not None:
        raise click.UsageError("--plots draws what sweeps show, so it needs --baseline NAME")
    if sweeps := [path for path in runs if (path / "results.json").is_file()]:
        raise click.UsageError(
            f"{sweeps[0]} is no run but has results of many; of a sweep, name the configuration that the others are "
            "compared with: --baseline NAME"
        )
    from aang_core.analysis.compare import compare_runs
    from aang_core.rundir.finished import read_runs

    found = compare_runs(read_runs(runs))
    cells = [_cells(row, metric) for row in found.rows for metric in row["metrics"]]
    title = f"{found.split} scores, baseline {found.rows[0]['run']}"
    return _Shown(found.rows, {title: cells}, found.remarks, lambda: _runs_csv(found))


def _tables(found: Mapping[str, Sequence[Mapping[str, str]]], markdown: bool) -> None:
    """:param found: title → rows, of one row or more; Markdown shows the titles of several tables alone."""
    for number, (title, cells) in enumerate(found.items()):
        if not markdown:
            render.table(cells, columns=list(cells[0]), title=title)
            continue
        if len(found) > 1:
            click.echo(("\n" if number else "") + f"**{one_line(title)}**\n")
        click.echo(markdown_table(cells))


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


def _detectable(
    found: Mapping[str, float | None] | None, shown: Callable[[float], str] = "{:.4f}".format
) -> str:
    from aang_core.analysis.detectability import could_show

    value = could_show(found)
    return "" if value is None else shown(value)


def _sweeps(paths: Sequence[Path], baselines: Sequence[str]) -> _Shown:
    from aang_core.study.sweeps.gains import compare_sweeps

    found = compare_sweeps(paths, baselines)
    over = " or ".join(baselines)
    tables = {
        f"gains over {over}, mean over tasks, in points": [
            cells for row in found["methods"] for cells in _mean_cells(row, _own(found))
        ],
        f"gains over {over}, task by task, in points": [
            cells for row in found["tasks"] for cells in _task_cells(row)
        ],
    }
    return _Shown(found, tables, found["remarks"], lambda: _gains_csv(found))


def _own(found: Mapping[str, Any]) -> str:
    """What the tasks' own metric is, where all have the same."""
    names = {row["metric"] for row in found["tasks"]}
    return names.pop() if len(names) == 1 else "each task's own"


def _mean_cells(row: Mapping[str, Any], own: str) -> Iterator[dict[str, str]]:
    """One method over its tasks, for people: a line a metric."""
    for metric, figures in row["metrics"].items():
        if metric == own:
            continue  # it stands there as the tasks' own
        first = metric == "own"
        verdicts = row["verdicts"]
        yield {
            "method": row["method"] if first else "",
            "metric": f"{own}*" if first else metric,
            "tasks": str(figures["tasks"]),
            "pairs": str(row["pairs"]) if first else "",
            "Δ": _points(figures["delta"], signed=True),
            "95 %, other seeds": interval_of(figures["interval_seeds"], 1, 100),
            "and texts": interval_of(figures["interval"], 1, 100),
            "other tasks": interval_of(figures["interval_tasks"], 1, 100),
            "p, Holm": p_value_of(figures["p_holm"]),
            "won/lost/tied": "/".join(map(str, verdicts.values())) if first else "",
            "could show": _points(figures["detectable"]),
            **(_costs(row) if first else dict.fromkeys(_costs(row), "")),
        }


def _task_cells(row: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """One method on one task, for people: a line a metric; accuracy and macro-F1 stand beside each other."""
    for metric, figures in row["metrics"].items():
        if metric == row["metric"]:
            continue
        first = metric == "own"
        yield {
            "task": row["task"] if first else "",
            "method": row["method"] if first else "",
            "metric": f"{row['metric']}*" if first else metric,
            "seeds": str(len(row["seeds"])) if first else "",
            "score": _points(figures["mean"]),
            "baseline": _points(figures["baseline"]) + (f" {row['baseline']}" if first else ""),
            "Δ": _points(figures["delta"], signed=True),
            "95 %": interval_of(figures["interval"], 1, 100),
            "verdict": (row["verdict"] or "") if first else "",
            "could show": _detectable(figures["detectable"], _points),
            **(_costs(row) if first else dict.fromkeys(_costs(row), "")),
        }


def _costs(row: Mapping[str, Any]) -> dict[str, str]:
    """Means a seed, and as a multiple of the baseline's."""
    found = {}
    for name, column in (("tokens", "tokens"), ("cpu_seconds", "CPU s")):
        cost, theirs = row[name], row[f"baseline_{name}"]
        times = f" ({cost / theirs:.2f}×)" if theirs else ""
        found[column] = f"{cost:,.0f}{times}"
    return found


def _points(value: float | None, signed: bool = False) -> str:
    return "" if value is None else f"{100 * value:{'+' if signed else ''}.1f}"


def _gains_csv(found: Mapping[str, Any]) -> str:
    """A line a task, method and metric."""
    from aang_core.analysis.detectability import could_show

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    facts = ("task", "method", "baseline", "split")
    costs = ("tokens", "baseline_tokens", "cpu_seconds", "baseline_cpu_seconds")
    figures = ("mean", "baseline_mean", "delta", "interval_low", "interval_high", "p_value")
    table.writerow([*facts, "metric", "seeds", *figures, "detectable", "verdict", *costs])
    for row in found["tasks"]:
        for name, own in row["metrics"].items():
            if name == row["metric"]:
                continue
            metric = row["metric"] if name == "own" else name
            line = [*(row[fact] for fact in facts), metric, " ".join(map(str, row["seeds"]))]
            line += [own["mean"], own["baseline"], own["delta"]]
            line += [*(own["interval"] or [None, None]), own["p_value"]]
            line += [could_show(own["detectable"]), row["verdict"] if name == "own" else None]
            table.writerow([*line, *(row[cost] for cost in costs)])
    return text.getvalue()


def _runs_csv(found: Comparison) -> str:
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
    return text.getvalue()
