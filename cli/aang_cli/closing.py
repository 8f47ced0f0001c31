"""What ``aang run`` prints at its end: scores, weights, and where the model lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from aang_cli import render
from aang_core.markdown import mean_and_std
from aang_core.rundir.directory import seed_directory

if TYPE_CHECKING:
    from aang_core.rundir.report import RunReport

HEAVIEST = 10


def show(report: RunReport) -> None:
    """Print the tables of a finished run."""
    from aang_core.rundir.report import engine_said

    scores = list(_scores(report))
    title = " ".join(part for part in (report.method, report.space, "on", report.task) if part)
    render.table(scores, columns=list(scores[0]), title=title)
    weights = report.weights
    if weights["objectives"]:
        heavy = sorted(weights["objectives"].items(), key=lambda item: (-item[1], item[0]))
        rows = [{"objective": name, "weight": f"{w:.4f}"} for name, w in heavy[:HEAVIEST]]
        render.table(rows, columns=("objective", "weight"), title="Heaviest objectives")
        stages = [
            {"stage": stage, "weights": _shares(table)}
            for stage, table in weights["stages"].items()
        ]
        render.table(stages, columns=("stage", "weights"), title="Weights of each stage")
        click.echo(f"end-task weight λ {weights['end_task']:.4f}")
    click.echo(f"engine {engine_said(report.seeds)}")
    for seed in report.seeds:
        if seed.guard:
            click.echo(f"seed {seed.seed}: {seed.guard['said']}")
    for seed in report.seeds:
        where = seed_directory(report.directory, [each.seed for each in report.seeds], seed.seed)
        click.echo(f"model {where / 'model'}")
    click.echo(f"report {report.directory / 'report.json'}")


def _scores(report: RunReport) -> Iterator[dict[str, Any]]:
    """A row per seed; with several, mean ± standard deviation below."""
    summary = report.summary
    names = [(split, metric) for split in ("dev", "test") for metric in _metrics(summary, split)]
    for seed in report.seeds:
        split = {"dev": seed.dev, "test": seed.test or {}}
        cells = {f"{s}_{m}": _number(split[s].get(m)) for s, m in names}
        yield {"seed": str(seed.seed), "best_step": seed.best_step, **cells}
    if len(report.seeds) > 1:
        cells = {f"{s}_{m}": mean_and_std(summary[s]["metrics"][m]) for s, m in names}
        yield {"seed": "mean ± std", "best_step": "", **cells}


def _metrics(summary: Mapping[str, Any], split: str) -> list[str]:
    return list(summary[split]["metrics"]) if summary[split] else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _shares(table: Mapping[str, float]) -> str:
    """``mask 0.31, no-op 0.24``, the heaviest first."""
    ordered = sorted(table.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {weight:.3f}" for name, weight in ordered)
