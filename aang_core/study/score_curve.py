"""Scores against the number of selected examples, as a figure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from aang_core.analysis.page.plots import COLOURS, QUIET, Plot, legend_below, says
from aang_core.study.arms import Arm

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@attrs.frozen
class Score:
    """An arm's mean score over seeds. :param std: over seeds; None for one seed."""

    arm: Arm
    mean: float
    std: float | None


def score_curve(name: str, title: str, measure: str, scores: Sequence[Score]) -> Plot:
    """A line over N for each way to select, with a standard deviation as error bar, and a level for what has no N.

    :param name: of its files. :param measure: what the y axis is.
    """
    lines: dict[str, list[Score]] = {}
    for score in scores:
        if score.arm.top:
            lines.setdefault(score.arm.label, []).append(score)
    levels = [score for score in scores if not score.arm.top]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        tops = sorted({score.arm.top for score in scores if score.arm.top})
        for number, (label, own) in enumerate(lines.items()):
            colour = COLOURS[number % len(COLOURS)]
            # beside each other, where error bars would hide one another
            shift = 1 + 0.02 * (number - (len(lines) - 1) / 2)
            axes.errorbar(
                [shift * score.arm.top for score in own],
                [score.mean for score in own],
                yerr=[score.std or 0.0 for score in own],
                color=colour,
                marker="o",
                markersize=4,
                capsize=2,
                label=label,
            )
        styles = ("--", ":", "-.")
        for level, style in zip(levels, itertools.cycle(styles)):
            axes.axhline(
                level.mean, color=QUIET, linestyle=style, linewidth=1.2, label=level.arm.label
            )
        axes.set_xscale("log")
        axes.set_xticks(tops, [str(top) for top in tops])
        axes.minorticks_off()
        axes.set_xlim(0.8 * tops[0], 1.25 * tops[-1])
        axes.set_xlabel("selected examples, N")
        says(axes, measure)
        legend_below(axes, columns=2)

    rows = -(-(len(lines) + len(levels)) // 2)
    return Plot(
        name=name,
        title=title,
        note="Means over seeds; bars are one standard deviation.",
        draw=draw,
        height=2.8 + 0.18 * rows,
    )
