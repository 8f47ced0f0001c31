"""What a selection leaves: ``selection.jsonl`` and ``summary.json``, written completely or not at all, and read back.

``selection.jsonl`` has a line ``{"task", "row", "score", "rank"}`` for every row that was scored, the best first:
`task` is a name under ``pools`` of the summary, `row` counts from 0 in that task's training split (in a text file: its
lines).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from aang_core.errors import RunError
from aang_core.files import replacing

SCHEMA = 1
ROWS = "selection.jsonl"
SUMMARY = "summary.json"
SETTINGS = "selection.toml"


@attrs.frozen(eq=False, kw_only=True)
class Selection:
    """A finished selection.

    :param summary: ``summary.json``; ``target``, ``pools`` (name → as it was given), ``model``, ``selector``, ``seed``.
    :param task: [R] the number of each row's task in `names`. :param row: [R]. :param score: [R]; the best first.
    """

    directory: Path
    summary: Mapping[str, Any]
    names: tuple[str, ...]
    task: NDArray[np.int32]
    row: NDArray[np.int64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.row)

    def top(self, count: int) -> dict[str, list[int]]:
        """Task name → its rows among the `count` best, sorted; tasks without any are left out.

        :raises RunError: where the selection has fewer rows.
        """
        if not 1 <= count <= len(self):
            raise RunError(
                f"{self.directory} ranks {len(self)} rows; expected a top from 1 to {len(self)}, found {count}"
            )
        rows: dict[str, list[int]] = {}
        for task, row in zip(self.task[:count].tolist(), self.row[:count].tolist(), strict=True):
            rows.setdefault(self.names[task], []).append(row)
        return {name: sorted(rows[name]) for name in self.names if name in rows}

    def counts(self, count: int) -> dict[str, int]:
        """How many of the `count` best rows each task has, 0 included."""
        found = Counter(self.task[:count].tolist())
        return {name: found[number] for number, name in enumerate(self.names)}


def ranked(
    task: NDArray[np.int32], row: NDArray[np.int64], score: NDArray[np.float64]
) -> NDArray[np.intp]:
    """[R] the order from the best row to the worst; equal scores in the order of tasks and rows."""
    return np.lexsort((row, task, -score))


def write_rows(path: Path, selection: Selection) -> None:
    """Write ``selection.jsonl``, line by line."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        parts = zip(selection.task, selection.row, selection.score, strict=True)
        for rank, (task, row, score) in enumerate(parts, 1):
            line = {
                "task": selection.names[task],
                "row": int(row),
                "score": float(score),
                "rank": rank,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_selection(directory: str | Path) -> Selection:
    """A selection that has ended.

    :raises RunError: where there is none, it is unfinished, or a file is damaged; says which line.
    """
    place = Path(directory)
    summary = _summary(place)
    names = tuple(summary["pools"])
    numbers = {name: number for number, name in enumerate(names)}
    tasks, rows, scores = [], [], []
    path = place / ROWS
    at = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for at, text in enumerate(lines, 1):
                line = json.loads(text)
                if line["rank"] != at:
                    raise ValueError(f"expected the rank {at}, found {line['rank']!r}")
                tasks.append(numbers[line["task"]])
                rows.append(int(line["row"]))
                scores.append(float(line["score"]))
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise RunError(
            f"{path}:{at} is damaged ({cause!r}); select again into a new --out"
        ) from cause
    if at != summary["ranked"]:
        raise RunError(
            f"{path} holds {at} rows, and {SUMMARY} says {summary['ranked']}; select again into a new --out"
        )
    return Selection(
        directory=place,
        summary=summary,
        names=names,
        task=np.array(tasks, dtype=np.int32),
        row=np.array(rows, dtype=np.int64),
        score=np.array(scores, dtype=np.float64),
    )


def _summary(place: Path) -> dict[str, Any]:
    path = place / SUMMARY
    if not path.is_file():
        unfinished = (place / SETTINGS).is_file()
        hint = (
            f"it is unfinished; go on with `aang select --resume --out {place}`"
            if unfinished
            else "make one with `aang select`"
        )
        raise RunError(f"{place} holds no finished selection (no {SUMMARY}): {hint}")
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = summary["schema"]
        if schema == SCHEMA:
            dict(summary["pools"]), int(summary["ranked"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise RunError(f"{path} is damaged: {cause!r}; select again into a new --out") from cause
    if schema != SCHEMA:
        raise RunError(f"{path} has the schema {schema}; this version of aang reads {SCHEMA}")
    return summary
