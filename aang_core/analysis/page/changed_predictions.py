"""Which test examples a run judges otherwise than another one, or, alone, where it is most surely wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aang_core.analysis.page.story import Story

SHOWN = 8


def changed(story: Story, other: Story) -> list[dict[str, Any]]:
    """Test rows by how much the probability of the true class differs from `other`, averaged over seeds.

    :return: the `SHOWN` largest changes: ``row``, ``inputs``, ``gold``, ``before`` and ``after`` (the most frequent
        answers) and ``change``; none for tasks without one class a row, or where either run lacks true labels.
    """
    mine, theirs = _chances(story), _chances(other)
    if mine is None or theirs is None or len(mine) != len(theirs):
        return []
    difference = mine - theirs
    order = np.argsort(-np.abs(difference), kind="stable")[:SHOWN]
    return [
        {
            **_row(story, int(row)),
            "before": _answer(other, int(row)),
            "after": _answer(story, int(row)),
            "change": float(difference[row]),
        }
        for row in order
        if abs(difference[row]) > 1e-6
    ]


def mistakes(story: Story) -> list[dict[str, Any]]:
    """The `SHOWN` test rows whose true class has the least probability, averaged over seeds, among those misjudged.

    :return: ``row``, ``inputs``, ``gold``, ``after`` and ``change`` (that probability).
    """
    chances = _chances(story)
    if chances is None:
        return []
    order = np.argsort(chances, kind="stable")
    wrong = [int(row) for row in order if _answer(story, int(row)) != _gold(story, int(row))]
    return [
        {**_row(story, row), "after": _answer(story, row), "change": float(chances[row])}
        for row in wrong[:SHOWN]
    ]


def _chances(story: Story) -> Any:
    """[R] the true class's mean probability; None where that is unknown."""
    seeds: Sequence[Sequence[Mapping[str, Any]]] = story.predictions
    if not seeds or not all(rows and "gold" in rows[0] and "label" in rows[0] for rows in seeds):
        return None
    return np.mean([[r["probabilities"].get(r["gold"], 0.0) for r in rows] for rows in seeds], 0)


def _answer(story: Story, row: int) -> str:
    said = [rows[row]["label"] for rows in story.predictions]
    answer: str = max(sorted(set(said)), key=said.count)
    return answer


def _gold(story: Story, row: int) -> str:
    return str(story.predictions[0][row]["gold"])


def _row(story: Story, row: int) -> dict[str, Any]:
    found = story.predictions[0][row]
    return {"row": row, "inputs": found.get("inputs", {}), "gold": found["gold"]}
