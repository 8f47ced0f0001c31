"""A finished run as its figures need it: histories, predictions, and means of them over seeds.

Fixed letters: S steps, K objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from aang_core.finished_runs import FinishedRun
from aang_core.history import (
    Estimate,
    History,
    Series,
    alignment_estimates,
    early_and_late,
    held,
    mean_of,
    pooled,
    read_history,
    smoothed,
)
from aang_core.page.plots import COLOURS, INK, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 5
"""Objectives that a chart of many lines names; the others are grey."""


@attrs.frozen(eq=False, kw_only=True)
class Story:
    """A finished run as its figures need it.

    :param histories: one a seed. :param predictions: one list a seed (empty lists without a test split).
    :param gains: (name of the other run, its row against this one as `compare.compare_runs` gives it, this run second).
    """

    run: FinishedRun
    histories: tuple[History, ...]
    predictions: tuple[list[dict[str, Any]], ...]
    gains: tuple[tuple[str, dict[str, Any]], ...] = ()

    @property
    def searched(self) -> bool:
        """Whether there were auxiliary objectives."""
        return any(history.ids for history in self.histories)

    @property
    def best_steps(self) -> list[int]:
        """Of each seed, the step that dev chose."""
        return [seed["best_step"] for seed in self.run.report["seeds"]]

    @property
    def estimates(self) -> list[Estimate]:
        """Mean alignments over all steps of all seeds."""
        return alignment_estimates(pooled(self.histories))


def read_story(run: FinishedRun, gains: Sequence[tuple[str, dict[str, Any]]] = ()) -> Story:
    """Everything that a run directory holds for its report.

    :raises RunError: where a file is damaged.
    """
    return Story(
        run=run,
        histories=tuple(read_history(run.folders[seed] / "history.jsonl") for seed in run.seeds),
        predictions=tuple(run.predictions(seed) for seed in run.seeds),
        gains=tuple(gains),
    )


def _shortest(story: Story) -> int:
    return min(len(history) for history in story.histories)


def mean_over_seeds(story: Story, tables: Sequence[Series]) -> Series:
    """[S, …] as far as the shortest seed goes."""
    return mean_of(np.stack([table[: _shortest(story)] for table in tables]))


def stage_shares(story: Story, stage: str) -> tuple[tuple[str, ...], Series]:
    shares = [history.stage_shares(stage) for history in story.histories]
    names = tuple(sorted({name for own, _ in shares for name in own}))
    wide = []
    for own, table in shares:
        full = np.full((len(table), len(names)), np.nan)
        full[:, [names.index(name) for name in own]] = table
        wide.append(full)
    return names, mean_over_seeds(story, wide)


def columns(story: Story, name: str) -> tuple[tuple[str, ...], Series]:
    """Ids and the smoothed [S, K] of one table, averaged over seeds."""
    ids = tuple(sorted({id_ for history in story.histories for id_ in history.ids}))
    wide = []
    for history in story.histories:
        full = np.full((len(history), len(ids)), np.nan)
        values = smoothed(getattr(history, name))
        full[:, [ids.index(id_) for id_ in history.ids]] = (
            held(values, 1.0) if name == "relative_weights" else values
        )
        wide.append(full)
    return ids, mean_over_seeds(story, wide)


def mark_best(axes: Axes, story: Story, named: bool = True) -> None:
    """A dotted line at each seed's chosen checkpoint."""
    for number, step in enumerate(story.best_steps):
        label = "best on dev" if named and number == 0 else None
        axes.axvline(step, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label=label)


def colour_of(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def many_lines(
    axes: Axes, story: Story, ids: Sequence[str], values: Series, named: Sequence[str]
) -> None:
    steps = np.arange(1, len(values) + 1)
    for id_, column in zip(ids, values.T, strict=True):
        if id_ not in named:
            axes.plot(steps, column, color=QUIET, alpha=0.45, linewidth=0.8)
    for number, id_ in enumerate(named):
        axes.plot(steps, values[:, list(ids).index(id_)], color=colour_of(number), label=id_)
    mark_best(axes, story)
    axes.set_xlabel("step")


def heaviest(story: Story) -> list[str]:
    return [id_ for id_, _, _ in early_and_late(pooled(story.histories))[:NAMED]]
