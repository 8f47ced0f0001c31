"""Scores against the number of selected examples, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from aang_core.page.plots import COLOURS, QUIET, Plot, legend_below, says

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@attrs.frozen
class Point:
    """A mean score over seeds. :param std: over seeds; None for one seed."""

    top: int
    mean: float
    std: float | None


def score_curve(
    name: str,
    title: str,
    measure: str,
    lines: Mapping[str, Sequence[Point]],
    levels: Mapping[str, float],
) -> Plot:
    """Lines over N, with a standard deviation as error bar, and levels of what has no N.

    :param name: of its files. :param measure: what the y axis is. :param levels: name → mean score.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        tops = sorted({point.top for points in lines.values() for point in points})
        for number, (label, points) in enumerate(lines.items()):
            colour = COLOURS[number % len(COLOURS)]
            # beside each other, where error bars would hide one another
            shift = 1 + 0.02 * (number - (len(lines) - 1) / 2)
            axes.errorbar(
                [shift * point.top for point in points],
                [point.mean for point in points],
                yerr=[point.std or 0.0 for point in points],
                color=colour,
                marker="o",
                markersize=4,
                capsize=2,
                label=label,
            )
        styles = ("--", ":", "-.")
        for number, (label, level) in enumerate(levels.items()):
            axes.axhline(
                level, color=QUIET, linestyle=styles[number % 3], linewidth=1.2, label=label
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
