"""The figures of what a run learned to weigh: primitives, objectives, λ, and the merges of a forked run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aang_core.analysis.history import early_and_late, pooled
from aang_core.analysis.page.plots import (
    COLOURS,
    INK,
    QUIET,
    Plot,
    colour_of,
    finish_rows,
    label_above,
    legend_below,
    many_lines,
    mark_best,
    says,
)
from aang_core.analysis.page.story import NAMED, Story, columns, mean_over_seeds, stage_shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = (9, 4)
"""Of many objectives a ranking shows so many from the top and from the bottom."""


def stage_weights(story: Story, stages: Sequence[str]) -> Plot:
    """Each stage's primitives over time."""
    tables = {stage: stage_shares(story, stage) for stage in stages}
    winners = [
        (float(values[-1].max()) * len(names), names[int(values[-1].argmax())], stage, values)
        for stage, (names, values) in tables.items()
    ]
    _, name, stage, values = max(winners, key=lambda found: found[0])

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(stages), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (stage, (names, values)) in zip(panels, tables.items(), strict=True):
            mark_best(axes, story.best_steps, named=False)
            steps = np.arange(1, len(values) + 1)
            for number, name in enumerate(names):
                axes.plot(steps, values[:, number], color=colour_of(number), label=name)
            axes.set_title(stage, loc="left", fontsize=9, fontweight="bold")
            axes.set_ylim(bottom=0)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        panels[-1].set_xlabel("step")

    what = "data source" if stage == "data" else stage
    share, equal = float(values[-1].max()), 1 / values.shape[1]
    return Plot(
        name="stage-weights",
        title=f"Of the {what}s, {name} ends heaviest: {share:.0%}, where an equal share is {equal:.0%}",
        note="Mean weight of the objectives with each primitive, as shares of its stage; the dotted line is the "
        "checkpoint that dev chose (paper, Figure 4).",
        draw=draw,
        height=1.25 * len(stages) + 0.4,
    )


def objective_weights(story: Story) -> Plot:
    """Objectives' relative weights over time."""
    ids, values = columns(story, "relative_weights")
    last = values[-1]
    best = int(np.nanargmax(last))
    named = [ids[i] for i in np.argsort(-last)[:NAMED]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        many_lines(axes, ids, values, named)
        mark_best(axes, story.best_steps)
        axes.axhline(1, color=INK, linewidth=0.7, alpha=0.6)
        says(axes, "× equal share")
        legend_below(axes)

    return Plot(
        name="objective-weights",
        title=f"{ids[best]} ends with {last[best]:.2f} times an equal share",
        note=f"The {len(named)} heaviest of {len(ids)} objectives are named; 1 is what each would have if all weighed "
        "the same.",
        draw=draw,
        height=3.6,
    )


def top_and_bottom(rows: Sequence[Any]) -> list[Any]:
    top, bottom = SHOWN
    return list(rows) if len(rows) <= top + bottom else [*rows[:top], *rows[-bottom:]]


def ranking(story: Story) -> Plot:
    """Objectives by weight, early against late."""
    from scipy.stats import spearmanr

    rows = [r for r in early_and_late(pooled(story.histories)) if np.isfinite(r[1:]).all()]
    early, late = [e for _, e, _ in rows], [w for _, _, w in rows]
    varied = len(rows) > 2 and np.ptp(early) > 0 and np.ptp(late) > 0
    kept = float(spearmanr(early, late).statistic) if varied else None
    shown = top_and_bottom(rows)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, (id_, before, after) in enumerate(shown):
            axes.plot([before, after], [-row, -row], color=QUIET, linewidth=1)
            axes.plot([before], [-row], "o", color=QUIET, label="first tenth" if not row else None)
            axes.plot(
                [after], [-row], "o", color=COLOURS[0], label="last half" if not row else None
            )
            label_above(axes, id_, -float(row))
        axes.axvline(1, color=INK, linewidth=0.7, alpha=0.6)
        finish_rows(axes, len(shown))
        axes.set_xlabel("mean weight / equal share")
        if shown:
            axes.legend(loc="lower right")

    if kept is None:
        title = "Objectives by their weight, early and late"
    else:
        said = "already shows early" if kept > 0.5 else "changes on the way"
        title = f"Which objectives are heavy {said} (rank correlation {kept:+.2f})"
    return Plot(
        name="ranking",
        title=title,
        note="Mean weights in the first tenth and in the last half of the steps (paper, Figure 5)"
        + (
            f"; {len(rows) - len(shown)} objectives between are left out."
            if rows[len(shown) :]
            else "."
        ),
        draw=draw,
        height=0.32 * len(shown) + 0.7,
    )


def end_task_share(story: Story) -> Plot:
    """λ over time."""
    tables = [history.end_task["weights"] for history in story.histories]
    mean = mean_over_seeds(story, tables)
    way = "rises" if mean[-1] > mean[0] else "falls" if mean[-1] < mean[0] else "stays"

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (seed, table) in enumerate(zip(story.run.seeds, tables, strict=True)):
            axes.plot(
                np.arange(1, len(table) + 1), table, color=colour_of(number), label=f"seed {seed}"
            )
        mark_best(axes, story.best_steps)
        axes.set_xlabel("step")
        says(axes, "λ")
        axes.legend()

    moved = (
        f"{way} from {mean[0]:.2f} to {mean[-1]:.2f}" if way != "stays" else f"stays {mean[0]:.2f}"
    )
    return Plot(
        name="end-task-share",
        title=f"The end-task's share of the loss, λ, {moved}",
        note="The auxiliary objectives together have 1 − λ.",
        draw=draw,
    )


def merges(story: Story) -> Plot:
    """The share λ that dev chose at each merge of a forked run."""
    shares = [[merge["share"] for merge in own] for own in story.merges]
    entered, count = sum(s > 0 for own in shares for s in own), sum(map(len, shares))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (seed, own) in enumerate(zip(story.run.seeds, story.merges, strict=True)):
            steps, values = [m["step"] for m in own], [m["share"] for m in own]
            axes.step(steps, values, where="pre", color=colour_of(number), label=f"seed {seed}")
            axes.plot(steps, values, "o", color=colour_of(number), markersize=4)
        mark_best(axes, story.best_steps)
        axes.set_ylim(-0.05, 1.05)
        axes.set_xlabel("step, of both branches")
        says(axes, "share λ of the joint branch")
        axes.legend()

    return Plot(
        name="merges",
        title=f"The objectives enter {entered} of {count} merges",
        note="Each stretch was trained without and with the objectives; dev chose the share of the second. At 0 "
        "nothing but plain fine-tuning is left of the stretch.",
        draw=draw,
    )
