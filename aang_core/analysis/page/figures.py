"""The report's figures, each with a sentence that says what it shows (paper, Figures 3 to 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aang_core.analysis.answer import amount
from aang_core.analysis.detectability import POINTS
from aang_core.analysis.history import END_TASK, Estimate, alignment_bands, smoothed
from aang_core.analysis.page.plots import (
    COLOURS,
    INK,
    QUIET,
    Plot,
    colour_of,
    finish_rows,
    label_above,
    legend_below,
    log_scale,
    many_lines,
    mark_best,
    rows_of_dots,
    says,
)
from aang_core.analysis.page.story import (
    NAMED,
    Story,
    columns,
    heaviest,
    mean_over_seeds,
    stage_shares,
)
from aang_core.analysis.page.weight_figures import (
    end_task_share,
    merges,
    objective_weights,
    ranking,
    stage_weights,
    top_and_bottom,
)
from aang_core.data.metrics import confusion_of
from aang_core.registry.records import STAGES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(story: Story) -> list[Plot]:
    """Every figure that this run has something for, in reading order."""
    plots = []
    if story.gains:
        plots.append(gains(story))
    if story.searched and (story.moved or any(story.merges)):  # else every line is level
        if stages := [s for s in STAGES if len(stage_shares(story, s)[0]) > 1]:
            plots.append(stage_weights(story, stages))
        plots += [objective_weights(story), ranking(story)]
        plots.append(merges(story) if any(story.merges) else end_task_share(story))
    if story.searched and story.estimates:
        plots += [alignments(story), bands(story), gradient_norms(story)]
    plots += [losses(story), dev_curve(story)]
    if any(rows and "gold" in rows[0] and "label" in rows[0] for rows in story.predictions):
        plots.append(confusion(story))
    return plots


def alignments(story: Story) -> Plot:
    """Mean alignments with their standard errors."""
    found = story.estimates
    auxiliary = [e for e in found if e.id != END_TASK]
    harmful = sum(e.harmful for e in auxiliary)
    helpful = sum(e.helpful for e in auxiliary)
    first = [e for e in found if e.id == END_TASK]
    shown = [*first, *top_and_bottom(auxiliary)]

    def colour(estimate: Estimate) -> str:
        if estimate.harmful:
            return COLOURS[3]
        return COLOURS[2] if estimate.helpful else QUIET

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        marks = [(e.mean, 2 * e.error) for e in shown]
        rows_of_dots(axes, [e.id for e in shown], marks, [colour(e) for e in shown])
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlabel(
            f"mean {story.run.config.meta.alignment} with the dev gradient, ± 2 standard errors"
        )

    return Plot(
        name="alignments",
        title=f"{helpful} of {len(auxiliary)} objectives pull the way dev wants, {harmful} against it",
        note="Beyond two standard errors over all steps and seeds; steps that follow each other count as less "
        "than independent ones.",
        draw=draw,
        height=0.32 * len(shown) + 0.7,
    )


def bands(story: Story) -> Plot:
    """Running mean alignments with their bands, and how many bands leave zero: whether weights can mean anything."""
    found = alignment_bands(story.histories)
    certain, count = found.certain, len(found.ids)
    with np.errstate(invalid="ignore", divide="ignore"):
        sureness = np.nan_to_num(np.abs(found.mean[-1]) / found.error[-1], posinf=0.0)
    named = np.argsort(-sureness)[:NAMED]

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot(found.steps, found.mean, color=QUIET, alpha=0.35, linewidth=0.8)
        for number, k in enumerate(named):
            mean, width = found.mean[:, k], 2 * found.error[:, k]
            upper.plot(found.steps, mean, color=colour_of(number), label=found.ids[k])
            upper.fill_between(
                found.steps, mean - width, mean + width, color=colour_of(number), alpha=0.15
            )
        upper.axhline(0, color=INK, linewidth=0.8)
        says(upper, f"mean {story.run.config.meta.alignment} so far, ± 2 standard errors")
        lower.plot(found.steps, 100 * certain.sum(axis=1) / max(count, 1), color=INK)
        lower.set_ylim(0, 100)
        lower.set_xlabel("step")
        says(lower, "% of objectives whose band leaves zero")
        figure.legend(loc="outside lower left")

    shuffled = story.run.config.meta.control == "shuffled"
    control = (
        " This run is a control: its weights were shuffled among the objectives."
        if shuffled
        else ""
    )
    return Plot(
        name="alignment-bands",
        title=f"After all steps {int(certain[-1].sum())} of {count} alignments are told from zero",
        note=f"The {len(named)} surest are named. Where no band leaves zero, learned weights are noise; by chance "
        f"alone about one band in twenty does.{control}",
        draw=draw,
        height=4.2,
    )


def gradient_norms(story: Story) -> Plot:
    """Gradient norms over time."""
    ids, values = columns(story, "norms")
    own = mean_over_seeds(story, [smoothed(h.end_task["norms"]) for h in story.histories])
    ratio = float(np.nanmedian(values) / np.nanmedian(own))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        many_lines(axes, ids, values, heaviest(story))
        mark_best(axes, story.best_steps)
        axes.plot(np.arange(1, len(own) + 1), own, color=INK, linewidth=2.2, label=END_TASK)
        log_scale(axes)
        says(axes, "gradient norm")
        legend_below(axes)

    return Plot(
        name="gradient-norms",
        title=f"An auxiliary gradient has {ratio:.1f} times the end-task's norm, in the median",
        note="Of the encoder's parameters, before weighting; smoothed. Few rows make a gradient long and noisy.",
        draw=draw,
        height=3.6,
    )


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
            steps = [step for step, _ in points]
            course = points[:-1] if steps != sorted(steps) else points  # a last probe goes back
            axes.plot(
                *zip(*course, strict=True), color=colour_of(number), label=f"seed {seed['seed']}"
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
    """Differences to other runs: of every seed, and their mean with its interval."""
    rows = story.gains
    name, hardest = story.hardest
    metric = hardest["metric"]
    scale = 100 if metric in POINTS else 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (other, found) in enumerate(rows):
            at = -float(number)
            colour = {"helped": COLOURS[2], "hurt": COLOURS[3]}.get(found["verdict"], COLOURS[0])
            if ends := [scale * v for v in found["interval"] or ()]:
                axes.plot(ends, [at, at], color=colour, linewidth=2.5)
            if len(seeds := [scale * v for v in found["deltas"]]) > 1:
                axes.plot(seeds, [at - 0.28] * len(seeds), "|", color=QUIET, markersize=8)
            axes.plot([scale * found["delta"]], [at], "o", color=colour, markersize=7)
            label_above(axes, f"over {other}", at)
        axes.axvline(0, color=INK, linewidth=0.8)
        finish_rows(axes, len(rows))
        low, high = axes.get_xlim()
        least = max(0.15 * max(abs(low), abs(high)), scale / 100)
        axes.set_xlim(min(low, -least), max(high, least))  # both sides of 0, a point at least
        unit = "points of " if scale > 1 else ""
        axes.set_xlabel(f"gain, {unit}{hardest['split']} {metric} (0: no difference)")

    said = f"{amount(hardest['delta'], metric, signed=True)}{' points' if scale > 1 else ''}"
    if len(rows) == 1:
        held = "is not known" if hardest["interval"] is None else "holds 0"
        side = {"helped": "lies above 0", "hurt": "lies below 0"}.get(hardest["verdict"], held)
        title = f"{said} over {name}; the interval {side}"
    else:
        clear = sum(found["verdict"] == "helped" for _, found in rows)
        title = f"{said} over the hardest baseline, {name}; clearly above {clear} of {len(rows)}"
    return Plot(
        name="gains",
        title=title,
        note="Mean difference and its 95 % interval over seeds and test examples; the strokes below it are the seeds "
        "(paper, Figure 3).",
        draw=draw,
        height=0.5 * len(rows) + 0.9,
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
