"""The picture of `gains.compare_sweeps`: the gain of every method on every task, and on the mean over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aang_core.analysis.page.plots import COLOURS, INK, Plot, colour_of, label_above
from aang_core.study.sweeps.gains import OWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDEST = 24
"""Characters of a name with which two stand side by side."""

_MARKERS = "osD^vPX*"
_LINE, _GAP = 0.13, 0.3  # inches: a method's row, and the room above a task's first for its name


def gains_plot(found: Mapping[str, Any]) -> Plot:
    """A block a task and one for the mean at the bottom, each with a row a method.

    :param found: what `gains.compare_sweeps` returns.
    """
    names = [row["method"] for row in found["methods"]]
    most = max(len(row["tasks"]) for row in found["methods"])
    blocks = _blocks(found, most)
    lines = sum(len(marks) for _, marks in blocks)
    edge = _edge([abs(value) for _, marks in blocks for value, _ in marks.values()])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        at = 0.0
        for place, (label, marks) in enumerate(blocks):
            at -= _GAP
            if place and place == len(blocks) - 1:  # the mean
                axes.axhline(at + _GAP / 2 + 0.04, color=INK, linewidth=0.8)
            label_above(axes, label, at - 0.2)
            for name, mark in marks.items():
                _draw_mark(axes, mark, at, names.index(name), edge)
                at -= _LINE
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_ylim(at, 0.0)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -1.1 * edge), min(high, 1.1 * edge))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"gain over {_baseline(found)}, points of the task's metric")
        _legend(figure, names)

    return Plot(
        name="gains",
        title=_title(found, most),
        note="Mean paired difference and its 95 % interval over seeds and test texts; the thin line of the mean is "
        "for other tasks.",
        draw=draw,
        height=_LINE * lines + _GAP * len(blocks) + 0.5 + 0.17 * -(-len(names) // _columns(names)),
    )


def _blocks(found: Mapping[str, Any], most: int) -> list[tuple[str, dict[str, _Mark]]]:
    """Each block's name, and its marks by method."""
    blocks: list[tuple[str, dict[str, _Mark]]] = []
    for task in dict.fromkeys(row["task"] for row in found["tasks"]):
        rows = [row for row in found["tasks"] if row["task"] == task]
        about = f"{task} ({rows[0]['metric']}"
        if len(found["baselines"]) > 1:
            about += f", over {rows[0]['baseline']}"
        marks = {row["method"]: _mark(row["metrics"][OWN], "interval") for row in rows}
        blocks.append((_plain(about + ")"), marks))
    if len(blocks) > 1:
        means = {
            row["method"]: _mark(row["metrics"][OWN], "interval", "interval_tasks")
            for row in found["methods"]
            if len(row["tasks"]) == most  # a mean over fewer is no match for it
        }
        blocks.append((f"mean over {most} tasks", means))
    return blocks


_Mark = tuple[float, Sequence[Sequence[float] | None]]
"""The gain and its intervals, the thick one first; in points."""


def _mark(figures: Mapping[str, Any], *intervals: str) -> _Mark:
    ends = [figures[name] and [100 * end for end in figures[name]] for name in intervals]
    return 100 * figures["delta"], ends


def _edge(sizes: Sequence[float]) -> float:
    """Where the picture ends on either side, so that one method that fails does not hide what all others do."""
    return max(1.0, 3 * float(np.quantile(sizes, 0.75)))


def _draw_mark(axes: Axes, mark: _Mark, at: float, number: int, edge: float) -> None:
    """A gain beyond the edge is an arrow there, with its number."""
    (value, intervals), colour = mark, colour_of(number)
    if abs(value) > edge:
        right = value > 0
        place, shift, side = (edge, -6, "right") if right else (-edge, 6, "left")
        axes.plot([place], [at], ">" if right else "<", color=colour, markersize=4.5)
        axes.annotate(
            f"{value:+.1f}", (place, at), (shift, 0), textcoords="offset points",
            ha=side, va="center", fontsize=7, color=colour,
        )  # fmt: skip
        return
    for ends, width in zip(intervals, (2.0, 0.8)[: len(intervals)], strict=True):
        if ends:
            axes.plot(ends, [at, at], color=colour, linewidth=width)
    axes.plot([value], [at], marker_of(number), color=colour, markersize=4.5)


def marker_of(number: int) -> str:
    """The marker of the nth method. When colours begin again, they meet other markers."""
    return _MARKERS[(number + number // len(COLOURS)) % len(_MARKERS)]


def _columns(names: Sequence[str]) -> int:
    """Of the legend: one where a name would run out of the picture in the second."""
    return 2 if max(map(len, names), default=0) <= _WIDEST else 1


def _legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour_of(n), marker=marker_of(n), markersize=4.5)
        for n in range(len(names))
    ]
    # matplotlib leaves out a name that begins with an underscore
    shown = [f" {_plain(name)}" if name.startswith("_") else _plain(name) for name in names]
    figure.legend(handles, shown, loc="outside lower left", ncols=_columns(names), handlelength=1.4)


def _plain(name: str) -> str:
    """A name that fits on a line, without what no picture may hold."""
    text = "".join(c if c.isprintable() else "?" for c in name)
    return text if len(text) <= 60 else text[:59] + "…"


def _baseline(found: Mapping[str, Any]) -> str:
    names = found["baselines"]
    return _plain(names[0]) if len(names) == 1 else "the baseline that dev prefers"


def _title(found: Mapping[str, Any], most: int) -> str:
    """What the mean shows, of all methods alike: who names the best alone has chosen by test."""
    figures = [row["metrics"][OWN] for row in found["methods"] if len(row["tasks"]) == most]
    above = sum((f["p_holm"] or 1) < 0.05 and f["delta"] > 0 for f in figures)
    below = sum((f["p_holm"] or 1) < 0.05 and f["delta"] < 0 for f in figures)
    tasks = f"on the mean of {most} tasks" if most > 1 else "on one task"
    return (
        f"{above} of {len(figures)} methods are better than {_baseline(found)} {tasks}, {below} worse "
        "(5 %, corrected for their number)"
    )
