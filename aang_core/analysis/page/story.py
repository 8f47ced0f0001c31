"""A finished run as its figures need it: histories, predictions, and means of them over seeds.

Fixed letters: S steps, K objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from aang_core.analysis.history import (
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
    widened,
)
from aang_core.rundir.finished import FinishedRun, read_control

NAMED = 5
"""Objectives that a chart of many lines names; the others are grey."""


@attrs.frozen(eq=False, kw_only=True)
class Story:
    """A finished run as its figures need it.

    :param histories: one a seed. :param predictions: one list a seed (empty lists without a test split).
    :param gains: (name of the other run, what this one gains over it as `answer.gain` says).
    :param kept: the answer that ``against.json`` holds, where the baseline's directory is gone; else empty.
    :param control: what ``control.json`` holds of the control trained beside the run (`read_control`); else empty.
    """

    run: FinishedRun
    histories: tuple[History, ...]
    predictions: tuple[list[dict[str, Any]], ...]
    gains: tuple[tuple[str, dict[str, Any]], ...] = ()
    kept: Mapping[str, Any] = attrs.field(factory=dict)
    control: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def hardest(self) -> tuple[str, dict[str, Any]]:
        """Of the `gains` the smallest: the one that answers whether the objectives helped."""
        return min(self.gains, key=lambda found: found[1]["delta"])

    @property
    def searched(self) -> bool:
        """Whether there were auxiliary objectives."""
        return any(history.ids for history in self.histories)

    @property
    def moved(self) -> bool:
        """Whether weights changed on the way; they are fixed with the method ``static``."""
        tables = [
            table
            for history in self.histories
            for table in (history.relative_weights, history.end_task["weights"][:, None])
        ]
        known = [column[np.isfinite(column)] for table in tables for column in table.T]
        return any(len(column) > 1 and float(np.ptp(column)) > 1e-9 for column in known)

    @property
    def best_steps(self) -> list[int]:
        """Of each seed, the step that dev chose."""
        return [seed["best_step"] for seed in self.run.report["seeds"]]

    @property
    def merges(self) -> list[list[dict[str, Any]]]:
        """Of each seed, the merges of its branches; empty lists for a run without."""
        return [seed.get("merges") or [] for seed in self.run.report["seeds"]]

    @property
    def estimates(self) -> list[Estimate]:
        """Mean alignments over all steps of all seeds."""
        return alignment_estimates(pooled(self.histories))


def read_story(
    run: FinishedRun,
    gains: Sequence[tuple[str, dict[str, Any]]] = (),
    kept: Mapping[str, Any] | None = None,
) -> Story:
    """Everything that a run directory holds for its report.

    :raises RunError: where a file is damaged.
    """
    return Story(
        run=run,
        histories=tuple(read_history(run.folders[seed] / "history.jsonl") for seed in run.seeds),
        predictions=tuple(run.predictions(seed) for seed in run.seeds),
        gains=tuple(gains),
        kept=kept or {},
        control=read_control(run.path),
    )


def mean_over_seeds(story: Story, tables: Sequence[Series]) -> Series:
    """[S, …] as far as the shortest seed goes.

    :param tables: [S, …], one a seed.
    """
    shortest = min(len(history) for history in story.histories)
    return mean_of(np.stack([table[:shortest] for table in tables]))


def stage_shares(story: Story, stage: str) -> tuple[tuple[str, ...], Series]:
    """The primitives of a stage and their [S, primitives] of `History.stage_shares`, averaged over seeds."""
    shares = [history.stage_shares(stage) for history in story.histories]
    names = tuple(sorted({name for own, _ in shares for name in own}))
    return names, mean_over_seeds(story, [widened(table, own, names) for own, table in shares])


def columns(story: Story, name: str) -> tuple[tuple[str, ...], Series]:
    """Ids and the smoothed [S, K] of one table of `History`, averaged over seeds.

    Where an objective was not sampled for long, ``relative_weights`` keep their last value.
    """
    ids = tuple(sorted({id_ for history in story.histories for id_ in history.ids}))
    wide = []
    for history in story.histories:
        values = smoothed(getattr(history, name))
        if name == "relative_weights":
            values = held(values, 1.0)
        wide.append(widened(values, history.ids, ids))
    return ids, mean_over_seeds(story, wide)


def heaviest(story: Story) -> list[str]:
    """The ids of the `NAMED` objectives that weigh most in the last half of the steps."""
    return [id_ for id_, _, _ in early_and_late(pooled(story.histories))[:NAMED]]
