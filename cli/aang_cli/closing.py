"""What ``aang run`` prints at its end: score, weights, alignments, the model, and whether the objectives helped."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from aang_cli import render
from aang_core.config.settings import AUTO, META_METHODS, WITHOUT_OBJECTIVES
from aang_core.markdown import mean_and_std
from aang_core.rundir.directory import seed_directory

PLAIN = "finetune"

if TYPE_CHECKING:
    from aang_core.analysis.history import Estimate
    from aang_core.rundir.finished import FinishedRun
    from aang_core.rundir.report import RunReport

LEVEL = 1e-9
"""Weights that differ by less are equal."""
HEAVIEST = 5
"""Objectives, and primitives of a stage, that are named; ``--verbose`` names all."""


def show(report: RunReport) -> None:
    """Print what a finished run found: its score first, then weights, at the end whether the objectives helped."""
    from aang_core.analysis.answer import score_of
    from aang_core.rundir.finished import read_run
    from aang_core.rundir.report import engine_said

    run = read_run(report.directory)
    found = score_of(run)
    click.echo(found["said"])
    click.echo()
    scores = list(_scores(report, found["metric"]))
    title = " ".join(part for part in (report.method, report.space, "on", report.task) if part)
    render.table(scores, columns=list(scores[0]), title=title)
    _objectives(report.weights, run)
    click.echo(f"engine {engine_said(report.seeds)}")
    for seed in report.seeds:
        if seed.guard:
            click.echo(f"seed {seed.seed}: {seed.guard['said']}")
        if seed.refit:
            click.echo(f"seed {seed.seed}: {seed.refit['said']}")
        if seed.merges:
            shares = [merge["share"] for merge in seed.merges]
            listed = ", ".join(f"{share:g}" for share in shares)
            click.echo(
                f"seed {seed.seed}: the objectives entered {sum(s > 0 for s in shares)} of {len(shares)} merges "
                f"(shares {listed})"
            )
        if seed.race:
            _race(seed.seed, seed.race)
    for seed in report.seeds:
        where = seed_directory(report.directory, [each.seed for each in report.seeds], seed.seed)
        click.echo(f"model {where / 'model'}")
    click.echo(f"report {report.directory / 'report.json'}")
    click.echo()
    for line in _answer(report):
        click.echo(line)


def _race(seed: int, race: Mapping[str, Any]) -> None:
    """What a seed's race tried, a line a training, and what it kept."""
    from aang_core.train.finish.race import is_kept

    metric = race["metric"]
    rows = [
        {
            "candidate": each["name"],
            "at most": f"{each['steps']} steps",
            "best": each["best_step"],
            f"dev {metric}": _number(each["dev"].get(metric)),
            "tokens": f"{each['cost']['tokens']:,}",
            "kept": "yes" if is_kept(each, race) else "",
        }
        for each in race["tried"]
    ]
    render.table(rows, columns=tuple(rows[0]), title=f"Race of seed {seed}")
    click.echo(f"seed {seed}: {race['said']}")


def _answer(report: RunReport) -> Iterator[str]:
    """Whether the objectives helped, and what to do next; or how to get to know it."""
    out = shlex.quote(str(report.directory))
    if report.control:
        yield f"control: {report.control['said']}"
    if report.against:
        yield f"next: {report.against['next']}"
        yield report.against["said"]
    elif report.method in WITHOUT_OBJECTIVES:
        yield f"label texts with it: aang predict {out} FILE --out labels.csv"
    else:
        yield "did the objectives help here? Plain fine-tuning on the same seeds will tell:"
        yield f"  aang run --resume --out {out} --against {PLAIN}"


def _objectives(weights: Mapping[str, Any], run: FinishedRun) -> None:
    """What a run found out about its objectives: their weights, or where all count the same, their alignments."""
    found = weights["objectives"].values()
    if not found:
        return
    if max(found) - min(found) > LEVEL:
        _weights(weights)
        return
    count = len(found)
    click.echo(f"{count} objectives of equal weight{_why(run)}" if count > 1 else "1 objective")
    if run.report["method"] in META_METHODS:  # the others have measured none
        _alignments(run)


def _why(run: FinishedRun) -> str:
    """Why weights are equal, and what would let them learn."""
    method, rule = run.report["method"], run.config.meta.rule
    if any(seed.get("merges") for seed in run.report["seeds"]):
        return ""  # a rule that forks learns nothing of single objectives
    if method == "aang" and rule not in (AUTO, "equal"):
        return f": the rule {rule!r} has not moved them"
    flags = "--rule aang" if method == "aang" else "--method aang --rule aang"
    return f" (`{flags}` learns weights; no rule has been shown to score better)"


def _weights(weights: Mapping[str, Any]) -> None:
    """The heaviest objectives and primitives, a line each."""
    count = len(weights["objectives"])
    most = count if render.loudness() == "verbose" else HEAVIEST
    heavy = sorted(weights["objectives"].items(), key=lambda item: (-item[1], item[0]))
    rows = [{"objective": name, "weight": f"{w:.4f}"} for name, w in heavy[:most]]
    render.table(rows, columns=("objective", "weight"), title="Heaviest objectives")
    for stage, table in weights["stages"].items():
        click.echo(f"{stage} {_shares(table, most)}")
    click.echo(f"end-task weight λ {weights['end_task']:.4f}")


def _alignments(run: FinishedRun) -> None:
    """The objectives that agree best with dev, as far as the run has measured it."""
    from aang_core.analysis.history import END_TASK
    from aang_core.analysis.page.story import read_story

    found = [estimate for estimate in read_story(run).estimates if estimate.id != END_TASK]
    if not found:
        return
    most = len(found) if render.loudness() == "verbose" else HEAVIEST
    measure = run.config.meta.alignment
    rows = [{"objective": e.id, "agreement": _estimated(e, measure)} for e in found]
    title = f"Agreement with dev: mean {measure} with its gradient"
    render.table(rows[:most], columns=("objective", "agreement"), title=title)
    helpful, harmful = sum(e.helpful for e in found), sum(e.harmful for e in found)
    click.echo(
        f"± two standard errors; {helpful} of {len(found)} objectives pull the way dev wants by more than that, "
        f"{harmful} against it (one in twenty leaves zero by chance)"
    )


def _estimated(estimate: Estimate, measure: str) -> str:
    """``+0.283 ± 0.051``, by two standard errors, which a single look has none of; dot products have any size."""
    kind = ".3f" if measure == "cosine" else ".2e"
    mean = f"{estimate.mean:+{kind}}"
    return mean if math.isnan(estimate.error) else f"{mean} ± {2 * estimate.error:{kind}}"


def _scores(report: RunReport, first: str) -> Iterator[dict[str, Any]]:
    """A row per seed, the metric `first` before the others; with several, mean ± standard deviation below."""
    summary = report.summary
    names = [
        (split, metric)
        for split in ("dev", "test")
        for metric in sorted(_metrics(summary, split), key=lambda name: name != first)
    ]
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


def _shares(table: Mapping[str, float], most: int) -> str:
    """``mask 0.310, no-op 0.240, and 3 more``, the heaviest first."""
    ordered = sorted(table.items(), key=lambda item: (-item[1], item[0]))
    more = [f"and {len(ordered) - most} more"] if len(ordered) > most else []
    return ", ".join([*(f"{name} {weight:.3f}" for name, weight in ordered[:most]), *more])
