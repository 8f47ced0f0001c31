"""The report's figures of the result: losses, dev scores, gains and confusions (paper, Figure 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aang_core.analysis.history import END_TASK, smoothed
from aang_core.analysis.page.plots import (
    COLOURS,
    INK,
    Plot,
    colour_of,
    finish_rows,
    label_above,
    legend_below,
    many_lines,
    mark_best,
    says,
)
from aang_core.analysis.page.story import Story, columns, heaviest, mean_over_seeds
from aang_core.data.metrics import confusion_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def losses(story: Story) -> Plot:
    """Training losses over time."""
    ids, values = columns(story, "losses")
    own = mean_over_seeds(story, [smoothed(h.end_task["losses"]) for h in story.histories])
    known = own[np.isfinite(own)]
    title = "Training losses"
    if len(known):
        title = f"The end-task's training loss goes from {known[0]:.2f} to {known[-1]:.2f}"

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        many_lines(axes, ids, values, heaviest(story))
        mark_best(axes, story.best_steps)
        axes.plot(np.arange(1, len(own) + 1), own, color=INK, linewidth=2.2, label=END_TASK)
        says(axes, "loss")
        axes.set_ylim(bottom=0)
        legend_below(axes)

    height = 3.6 if ids else 2.8
    return Plot(
        name="losses", title=title, note="Means a target; smoothed.", draw=draw, height=height
    )


def dev_curve(story: Story) -> Plot:
    """Evaluations on dev."""
    report, metric = story.run.report, story.run.report["metric"]
    best = float(np.mean([seed["dev"][metric] for seed in report["seeds"]]))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, seed in enumerate(report["seeds"]):
            points = [(e["step"], e[metric]) for e in seed["evaluations"]]
            axes.plot(
                *zip(*points, strict=True), color=colour_of(number), label=f"seed {seed['seed']}"
            )
            chosen = [value for step, value in points if step == seed["best_step"]]
            if chosen:
                axes.plot([seed["best_step"]], [max(chosen)], "o", color=colour_of(number))
        axes.set_xlabel("step")
        says(axes, f"dev {metric}")
        axes.legend()

    steps = ", ".join(str(step) for step in story.best_steps)
    return Plot(
        name="dev-curve",
        title=f"dev {metric} is best at step {steps}: {best:.3f}",
        note="The dot is the checkpoint that test was read for, once.",
        draw=draw,
    )


def gains(story: Story) -> Plot:
    """Differences to other runs, with intervals."""
    rows = story.gains

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (name, row) in enumerate(rows):
            at = -float(number)
            if row["interval"]:
                axes.plot(
                    [100 * v for v in row["interval"]], [at, at], color=COLOURS[0], linewidth=2
                )
            axes.plot([100 * row["delta"]], [at], "o", color=COLOURS[0])
            label_above(axes, f"over {name}", at)
        axes.axvline(0, color=INK, linewidth=0.8)
        finish_rows(axes, len(rows))
        axes.set_xlabel(f"gain in {rows[0][1]['split']} {rows[0][1]['metric']}, points")

    clear = sum(bool(row["interval"]) and row["interval"][0] > 0 for _, row in rows)
    name, hardest = min(rows, key=lambda found: found[1]["delta"])
    return Plot(
        name="gains",
        title=f"{100 * hardest['delta']:+.1f} points over the hardest baseline, {name}; "
        f"clearly above {clear} of {len(rows)}",
        note="Mean of the paired differences over seeds, and its 95 % bootstrap interval (paper, Figure 3).",
        draw=draw,
        height=0.42 * len(rows) + 0.8,
    )


def confusion(story: Story) -> Plot:
    """True against predicted classes."""
    rows = [row for own in story.predictions for row in own]
    names = sorted({row["gold"] for row in rows} | {row["label"] for row in rows})
    counts = confusion_of(rows, names)
    wrong = counts - np.diag(np.diag(counts))
    gold, said = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.grid(visible=False)
        for (i, j), count in np.ndenumerate(counts):
            if len(names) <= 15:
                ink = "#ffffff" if shares[i, j] > 0.5 else "#24292f"
                axes.text(j, i, str(count), ha="center", va="center", fontsize=7.5, color=ink)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7.5)
        axes.set_yticks(range(len(names)), names, fontsize=7.5)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    most = int(wrong[gold, said])
    title = (
        f"{names[gold]} is taken for {names[said]} most often: {most} of {int(counts[gold].sum())}"
    )
    return Plot(
        name="confusion",
        title=title if most else "No test example is misjudged",
        note="Test examples of all seeds; shades are shares of each true class.",
        draw=draw,
        height=min(5.0, 1.6 + 0.28 * len(names)),
    )
