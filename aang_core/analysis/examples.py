"""Test examples, identified by their content: with ``split_anew`` row i is another example for each seed.

Fixed letters: S seeds, E distinct examples over all seeds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Example = tuple[str, str, int]
"""Its inputs and its true answer as JSON, and how many equal rows stand above it in its split."""


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


def by_example(seeds: Sequence[Sequence[Row]]) -> dict[Example, list[Row]]:
    """The E examples in the order in which they first come, each with its row of every seed that judged it.

    :param seeds: S lists of the lines of ``predictions.jsonl``.
    """
    found: dict[Example, list[Row]] = {}
    for rows in seeds:
        for example, row in examples_of(rows).items():
            found.setdefault(example, []).append(row)
    return found
