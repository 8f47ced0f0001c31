"""The picture of a selection: pooled vectors of some rows of each task, in two dimensions by t-SNE, coloured by task.

t-SNE: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008. FastMTL (EMNLP 2021) shows its tasks so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from aang_core.analysis.page import plots
from aang_core.data.auxiliary import Selection
from aang_core.files import write_text
from aang_core.randomness import derived_seed
from aang_core.selection.pools import Pool
from aang_core.selection.protocols import SelectionContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "tsne"
_LEAST = 5
"""Fewer vectors make no picture."""
_PERPLEXITY = 30.0


@attrs.frozen(eq=False)
class Points:
    """Places in the picture: `names` in the order of the legend, the target first; [R] each."""

    names: tuple[str, ...]
    task: NDArray[np.int64]
    row: NDArray[np.int64]
    chosen: NDArray[np.bool_]
    place: NDArray[np.float64]  # [R, 2]


def write_picture(
    resolved: SelectionContext, selection: Selection, top: int, most: int, directory: Path
) -> bool:
    """Write ``tsne.json`` (every point), and ``tsne.svg`` and ``tsne.png`` where matplotlib is installed.

    :param top: how many of the best are marked. :param most: rows of each task.
    :return: whether there is a picture: too few rows make none.
    """
    points = _points(resolved, selection, top, most)
    if points is None:
        return False
    lines = [
        {
            "task": points.names[task],
            "row": int(row),
            "chosen": bool(chosen),
            "x": round(float(x), 4),
            "y": round(float(y), 4),
        }
        for task, row, chosen, (x, y) in zip(
            points.task, points.row, points.chosen, points.place, strict=True
        )
    ]
    write_text(directory / f"{NAME}.json", json.dumps(lines, indent=0) + "\n")
    if plots.available():
        plots.write_plots([_plot(points, resolved.target.name, top)], directory)
    return True


def _points(resolved: SelectionContext, selection: Selection, top: int, most: int) -> Points | None:
    """Rows drawn evenly from each task, and where t-SNE puts them."""
    from sklearn.manifold import TSNE

    best = selection.top(top)
    everyone = [resolved.examples, *resolved.pools]
    drawn = [pool.sample(most, resolved.seed) for pool in everyone]
    vectors = np.concatenate(
        [_vectors(resolved, pool, rows) for pool, rows in zip(everyone, drawn, strict=True)]
    )
    if len(vectors) < _LEAST:
        return None
    tsne = TSNE(
        perplexity=min(_PERPLEXITY, (len(vectors) - 1) / 3),
        init="pca",
        random_state=derived_seed(resolved.seed, "picture") % 2**32,
        n_jobs=1,
    )
    names = [f"{resolved.target.name} (target)", *(pool.name for pool in resolved.pools)]
    marked = [set[int](), *(set(best.get(pool.name, ())) for pool in resolved.pools)]
    return Points(
        names=tuple(names),
        task=np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn]),
        row=np.array([row for rows in drawn for row in rows], dtype=np.int64),
        chosen=np.array([r in own for rows, own in zip(drawn, marked, strict=True) for r in rows]),
        place=np.asarray(tsne.fit_transform(vectors), dtype=np.float64),
    )


def _vectors(resolved: SelectionContext, pool: Pool, rows: Sequence[int]) -> NDArray[Any]:
    """[R, H], of length 1."""
    pooling = resolved.options.get("pooling", "mean")
    found = resolved.vectors(pool.rows(resolved.backbone, rows), pooling).double().numpy()
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(length > 0, length, 1.0))


def _plot(points: Points, target: str, top: int) -> plots.Plot:
    return plots.Plot(
        name=NAME,
        title=f"Examples of the tasks as the encoder sees them, and which are chosen for {target}",
        note=f"t-SNE of pooled vectors; a dark edge marks rows among the {top} best.",
        draw=partial(_draw, points),
        height=4.2,
    )


def _draw(points: Points, figure: Figure) -> None:
    axes = figure.add_subplot()
    for number, name in enumerate(points.names):
        own = points.task == number
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        shape = "o" if number < len(plots.COLOURS) else "^"
        for chosen in (False, True):
            part = own & (points.chosen == chosen)
            x, y = points.place[part].T
            axes.scatter(
                x,
                y,
                s=34 if number == 0 else 14,
                marker="*" if number == 0 else shape,
                color=colour,
                edgecolors=plots.INK if chosen else "none",
                linewidths=0.8 if chosen else 0.0,
                alpha=0.85,
                label=None if chosen else name,
            )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.02), ncols=2, borderaxespad=0)
