"""Test examples that two runs predict differently; for one run, the mistakes of which it is most certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aang_core.analysis.examples import Example, Row, by_example
from aang_core.analysis.page.story import Story

SHOWN = 8


def changed(story: Story, other: Story) -> list[dict[str, Any]]:
    """Test examples by how much the probability of the true class differs from `other`.

    An example's probability is the mean over the seeds that judged it: all of them, or fewer where each seed drew its
    own test split. Examples that only one of the runs judged are left out.

    :return: the `SHOWN` largest changes: ``inputs``, ``gold``, ``before`` and ``after`` (the most frequent answers)
        and ``change``; none for tasks without one class a row, or where either run lacks true labels.
    """
    mine, theirs = _judged(story), _judged(other)
    changes = {e: _chance(mine[e]) - _chance(theirs[e]) for e in mine if e in theirs}
    moved = sorted((e for e in changes if abs(changes[e]) > 1e-6), key=lambda e: -abs(changes[e]))
    return [
        {
            **_shown(mine[example]),
            "before": _answer(theirs[example]),
            "after": _answer(mine[example]),
            "change": changes[example],
        }
        for example in moved[:SHOWN]
    ]


def mistakes(story: Story) -> list[dict[str, Any]]:
    """The `SHOWN` misjudged test examples whose true class has the least probability, averaged over their seeds.

    :return: ``inputs``, ``gold``, ``after`` and ``change`` (that probability).
    """
    judged = _judged(story).values()
    wrong = sorted((rows for rows in judged if _answer(rows) != rows[0]["gold"]), key=_chance)
    return [
        {**_shown(rows), "after": _answer(rows), "change": _chance(rows)} for rows in wrong[:SHOWN]
    ]


def _judged(story: Story) -> Mapping[Example, Sequence[Row]]:
    """Every example with its rows; empty where the true classes are unknown."""
    seeds = story.predictions
    if not all(rows and "gold" in rows[0] and "label" in rows[0] for rows in seeds):
        return {}
    return by_example(seeds)


def _chance(rows: Sequence[Row]) -> float:
    """The true class's mean probability."""
    return float(np.mean([row["probabilities"].get(row["gold"], 0.0) for row in rows]))


def _answer(rows: Sequence[Row]) -> str:
    said = [row["label"] for row in rows]
    answer: str = max(sorted(set(said)), key=said.count)
    return answer


def _shown(rows: Sequence[Row]) -> dict[str, Any]:
    return {"inputs": rows[0].get("inputs", {}), "gold": rows[0]["gold"]}
