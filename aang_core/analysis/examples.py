"""Test examples, identified by their content: with ``split_anew`` row i is another example for each seed.

Also those that two runs predict differently, and for one run the mistakes of which it is most certain.

Fixed letters: S seeds, E distinct examples over all seeds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]
Example = tuple[str, str, int]
"""Its inputs and its true answer as JSON, and how many equal rows stand above it in its split."""
Seeds = Sequence[Sequence[Row]]

SHOWN = 8
"""So many examples a table has."""


def examples_of(rows: Sequence[Row]) -> dict[Example, Row]:
    """The lines of one ``predictions.jsonl`` under the examples that they judge, in their order.

    Rows without inputs, as hand-made files may have, are told apart by their place alone.
    """
    found: dict[Example, Row] = {}
    repeats: Counter[tuple[str, str]] = Counter()
    for row in rows:
        key = tuple(
            json.dumps(row.get(name), sort_keys=True, ensure_ascii=False)
            for name in ("inputs", "gold")
        )
        found[(key[0], key[1], repeats[key[0], key[1]])] = row
        repeats[key[0], key[1]] += 1
    return found


def by_example(seeds: Seeds) -> dict[Example, list[Row]]:
    """The E examples in the order in which they first come, each with its row of every seed that judged it.

    :param seeds: S lists of the lines of ``predictions.jsonl``.
    """
    found: dict[Example, list[Row]] = {}
    for rows in seeds:
        for example, row in examples_of(rows).items():
            found.setdefault(example, []).append(row)
    return found


def changed(seeds: Seeds, others: Seeds) -> list[dict[str, Any]]:
    """Test examples by how much the probability of the true class differs from that of another run.

    An example's probability is the mean over the seeds that judged it: all of them, or fewer where each seed drew its
    own test split. Examples that only one of the runs judged are left out.

    :param seeds, others: of each run, the lines of ``predictions.jsonl`` by seed.
    :return: the `SHOWN` largest changes: ``inputs``, ``gold``, ``before`` and ``after`` (the most frequent answers)
        and ``change``; none for tasks without one class a row, or where either run lacks true labels.
    """
    mine, theirs = _judged(seeds), _judged(others)
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


def mistakes(seeds: Seeds) -> list[dict[str, Any]]:
    """The `SHOWN` misjudged test examples whose true class has the least probability, averaged over their seeds.

    :return: ``inputs``, ``gold``, ``after`` and ``change`` (that probability).
    """
    judged = _judged(seeds).values()
    wrong = sorted((rows for rows in judged if _answer(rows) != rows[0]["gold"]), key=_chance)
    return [
        {**_shown(rows), "after": _answer(rows), "change": _chance(rows)} for rows in wrong[:SHOWN]
    ]


def _judged(seeds: Seeds) -> Mapping[Example, Sequence[Row]]:
    """Every example with its rows; empty where the true classes are unknown."""
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
