"""Figures as inline SVG for the page, and as PNG and SVG files. One style, readable on light and dark and at any size.

matplotlib comes with the extra ``aang[plots]``; nothing here touches its global state.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from aang_core.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2328"  # text and axes; becomes currentColor where the page decides
QUIET = "#8b949e"  # what is there for comparison; readable on white and on black
COLOURS = ("#2f81c7", "#e0793a", "#2e9e6b", "#c6507c", "#8a6fd1", "#b08d1a", "#3aa3b5", "#a0653c")
WIDTH = 4.8  # inches: at 390 px letters of 9 points are still 9 px high

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": QUIET,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "svg.fonttype": "none",  # letters stay text: selectable, and in the page's own font
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@attrs.frozen(eq=False, kw_only=True)
class Plot:
    """One figure of the report.

    :param name: of its files. :param title: what it shows, as a sentence. :param note: how to read it.
    :param draw: fills an empty figure.
    :param height: inches.
    """

    name: str
    title: str
    note: str
    draw: Callable[[Figure], None]
    height: float = 2.8


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


@contextmanager
def drawn(plot: Plot, title: bool) -> Iterator[Figure]:
    if not available():
        raise RunError("plots need matplotlib, which is not installed: pip install 'aang[plots]'")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": plot.name}
    with rc_context(style):
        figure = Figure(figsize=(WIDTH, plot.height + (0.5 if title else 0)), layout="constrained")
        plot.draw(figure)
        if title:
            text = "\n".join(textwrap.wrap(plot.title, 50))
            figure.suptitle(text, x=0.02, ha="left", fontsize=10, fontweight="bold")
        _settle(figure)
        yield figure


def _settle(figure: Figure) -> None:
    """Lay the figure out and keep its tick labels; no draw is needed for that, which costs as much again.

    Axes that the layout makes smaller or larger choose other ticks; their longer labels would find no room. Saving lays
    the figure out once more, round the labels that are kept.
    """
    from matplotlib.ticker import FixedLocator

    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [at for at in axis.get_majorticklocs() if low <= at <= high]
            axis.set_major_locator(FixedLocator(shown))


def inline_svg(plot: Plot) -> str:
    """An ``<svg>`` element whose ink is the page's text colour.

    :raises RunError: where matplotlib is missing.
    """
    text = io.StringIO()
    with drawn(plot, title=False) as figure:
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    # ids are made per figure, and the page holds many: tell them apart
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{plot.name}-", svg)
    return svg.replace("<svg ", '<svg role="img" ', 1)


def write_plots(plots: Sequence[Plot], directory: Path) -> list[Path]:
    """Every plot as ``NAME.svg`` and ``NAME.png`` (200 dots an inch), on white and with its title.

    :raises RunError: where matplotlib is missing or the directory cannot be written.
    """
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            for kind in ("svg", "png"):
                path = directory / f"{plot.name}.{kind}"
                metadata = {"Date": None} if kind == "svg" else None
                with drawn(plot, title=True) as figure:
                    figure.savefig(path, dpi=200, facecolor="white", metadata=metadata)
                written.append(path)
    except OSError as cause:
        raise RunError(f"cannot write plots into {directory}: {cause.strerror}") from cause
    return written


def rows_of_dots(
    axes: Axes, labels: Sequence[str], marks: Sequence[tuple[float, float]], colours: Sequence[str]
) -> None:
    """A dot a row with its error bar, and its label above it, where long names find room.

    :param marks: (value, half width of the bar) from the top row on.
    """
    for row, (label, (value, half), colour) in enumerate(zip(labels, marks, colours, strict=True)):
        at = -float(row)
        if np.isfinite(half) and half > 0:
            axes.plot([value - half, value + half], [at, at], color=colour, linewidth=1.4)
        axes.plot([value], [at], "o", color=colour, markersize=4.5)
        label_above(axes, label, at)
    finish_rows(axes, len(labels))


def label_above(axes: Axes, label: str, at: float) -> None:
    """A row's name, at the left edge above its line."""
    axes.text(0, at + 0.24, label, transform=axes.get_yaxis_transform(), fontsize=7.5, va="bottom")


def finish_rows(axes: Axes, count: int) -> None:
    """No y axis: the rows carry their names."""
    axes.set_ylim(-count + 0.5, 0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def colour_of(number: int) -> str:
    """The colour of the nth line; they repeat."""
    return COLOURS[number % len(COLOURS)]


def mark_best(axes: Axes, steps: Sequence[int], named: bool = True) -> None:
    """A dotted line at the step of each seed's chosen checkpoint."""
    for number, step in enumerate(steps):
        label = "best on dev" if named and number == 0 else None
        axes.axvline(step, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label=label)


def many_lines(
    axes: Axes, ids: Sequence[str], values: NDArray[np.float64], named: Sequence[str]
) -> None:
    """A line an objective over the steps, the `named` ones in colour above the grey others.

    :param values: [S, K].
    """
    steps = np.arange(1, len(values) + 1)
    for id_, column in zip(ids, values.T, strict=True):
        if id_ not in named:
            axes.plot(steps, column, color=QUIET, alpha=0.45, linewidth=0.8)
    for number, id_ in enumerate(named):
        axes.plot(steps, values[:, list(ids).index(id_)], color=colour_of(number), label=id_)
    axes.set_xlabel("step")


def says(axes: Axes, text: str) -> None:
    """What the y axis measures, above it: read without turning one's head, and no room is lost at the side."""
    axes.set_title(text, loc="left", fontsize=8, pad=4)


def log_scale(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers, which need no mathematical type."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda _value, _: "")


def legend_below(axes: Axes, columns: int = 1) -> None:
    """A legend under the axes, one column for long names."""
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, -0.22),
        ncols=columns,
        borderaxespad=0,
        handlelength=1.4,
    )
