"""Drawing and splitting of step 2. In: labels or a `Task`. Out: row numbers, or the `Task` with fewer labels.

Everything is deterministic: a seed is an argument, and the rows of a draw keep their order.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from aang_core.errors import TaskError

if TYPE_CHECKING:
    from aang_core.task import Task

SPLIT_SEED = 0
"""Splits that aang makes are the same in every run, whatever the run's seed."""


def share_out(counts: Sequence[int], size: int, least: int = 1) -> list[int]:
    """Divide `size` among classes in proportion to their rows, by largest remainder.

    :param counts: rows of each class; no share exceeds its class.
    :param least: smallest share, as far as a class has so many and `size` allows.
    """
    if size > sum(counts):
        raise ValueError(f"cannot share {size} among {sum(counts)}")
    ideal = [size * count / sum(counts) for count in counts]
    floor = (
        [min(least, count) for count in counts]
        if size >= least * len(counts)
        else [0] * len(counts)
    )
    shares = [max(low, int(want)) for low, want in zip(floor, ideal, strict=True)]
    while (total := sum(shares)) != size:
        step = 1 if total < size else -1
        open_ = [i for i in range(len(counts)) if floor[i] <= shares[i] + step <= counts[i]]
        best = max(open_, key=lambda i: step * (ideal[i] - shares[i]))
        shares[best] += step
    return shares


def draw_by_class(
    keys: Sequence[Hashable], size: int, generator: np.random.Generator, least: int = 1
) -> list[int]:
    """`size` row numbers, sorted, whose classes stand in the same proportion as in `keys`."""
    groups: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    members = [groups[key] for key in sorted(groups, key=repr)]
    shares = share_out([len(rows) for rows in members], size, least)
    drawn = []
    for rows, share in zip(members, shares, strict=True):
        drawn += generator.permutation(rows)[:share].tolist()
    return sorted(drawn)


def draw_covering(
    sets: Sequence[Iterable[Hashable]], size: int, generator: np.random.Generator
) -> list[int]:
    """`size` row numbers, sorted, among which every label of `sets` occurs: for rows with several labels.

    :raises TaskError: where the rows needed to cover the labels are more than `size`.
    """
    order = generator.permutation(len(sets)).tolist()
    seen: set[Hashable] = set()
    needed = []
    for row in order:
        if not seen.issuperset(sets[row]):
            needed.append(row)
            seen.update(sets[row])
    if len(needed) > size:
        raise TaskError(
            f"{size} rows cannot hold every label once; at least {len(needed)} are needed"
        )
    chosen = set(needed)
    rest = [row for row in order if row not in chosen]
    return sorted(needed + rest[: size - len(needed)])


def draw_labels(
    kind: str, labels: Sequence[Any], size: int, generator: np.random.Generator
) -> list[int]:
    """`size` row numbers, in the way that suits the kind of task (see `Task.kind`)."""
    if kind == "class":
        return draw_by_class(labels, size, generator)
    if kind == "regression":
        return sorted(generator.permutation(len(labels))[:size].tolist())
    if kind == "multilabel":
        sets = [[i for i, on in enumerate(row) if on] for row in labels]
        return draw_covering(sets, size, generator)
    return draw_covering(labels, size, generator)


def split_rows(
    kind: str,
    labels: Sequence[Any],
    shares: Sequence[float],
    generator: np.random.Generator | None = None,
) -> list[list[int]]:
    """Divide rows into parts: the first keeps what the others, of the given shares of all rows, leave.

    :param generator: by default one that is the same in every run.
    :returns: ``1 + len(shares)`` lists of row numbers; by class, each part has at least one row of each
        class that is large enough.
    """
    generator = generator or np.random.default_rng(SPLIT_SEED)
    rest = list(range(len(labels)))
    parts = []
    for share in shares:
        size = max(1, round(share * len(labels)))
        if kind in ("multilabel", "token"):  # keep each label in the first part
            keep = draw_labels(kind, [labels[i] for i in rest], len(rest) - size, generator)
            kept = set(keep)
            part = [i for i in range(len(rest)) if i not in kept]
        elif kind == "class":
            part = _leaving_one([labels[i] for i in rest], size, generator)
        else:
            part = draw_labels(kind, [labels[i] for i in rest], size, generator)
        taken = {rest[i] for i in part}
        parts.append(sorted(taken))
        rest = [row for row in rest if row not in taken]
    return [rest, *parts]


def repeats_together(columns: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Row numbers, those of equal inputs (by `normalised`) in one list; lists and rows in the order of the rows.

    :param columns: the inputs, a list of rows for each.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, example in enumerate(zip(*map(texts_of, columns), strict=True)):
        groups.setdefault(normalised(example), []).append(row)
    return list(groups.values())


def labels_together(kind: str, labels: Sequence[Any], groups: Sequence[Sequence[int]]) -> list[Any]:
    """A label to split each group of rows by: where its rows contradict each other, the rarest class, or all labels."""
    if kind == "class":
        counts = Counter(labels)
        return [min((labels[i] for i in g), key=lambda n: (counts[n], n)) for g in groups]
    if kind == "multilabel":
        return [[max(on) for on in zip(*(labels[i] for i in g), strict=True)] for g in groups]
    if kind == "token":
        return [[tag for i in g for tag in labels[i]] for g in groups]
    return [labels[g[0]] for g in groups]


def _leaving_one(keys: Sequence[Hashable], size: int, generator: np.random.Generator) -> list[int]:
    """Draw by class, but leave at least one row of each class behind."""
    first: dict[Hashable, int] = {}
    for row in generator.permutation(len(keys)).tolist():
        first.setdefault(keys[row], row)
    kept = set(first.values())
    open_ = [row for row in range(len(keys)) if row not in kept]
    size = min(len(open_), max(size, len({keys[row] for row in open_})))
    return [open_[i] for i in draw_by_class([keys[row] for row in open_], size, generator)]


def draw_train_rows(task: Task, rows: int, seed: int) -> Task:
    """Keep `rows` labelled training rows and make the other ones unlabelled, as ``--train-rows`` asks.

    The draw depends on the task, `rows` and `seed` alone, so every method sees the same rows.

    :param rows: how many; 0 keeps all.
    :raises TaskError: where there are fewer rows, or more classes than `rows`.
    """
    from datasets import concatenate_datasets

    train = task.splits["train"]
    if rows == 0:
        return task
    labels = train["label"][:]
    classes = len(set(labels)) if task.kind == "class" else 1
    if not classes <= rows <= len(labels):
        raise TaskError(
            f"cannot draw {rows} training rows from task {task.name!r}; expected from {classes} "
            f"(one of each class) to {len(labels)} (the whole training split)"
        )
    chosen = draw_labels(task.kind, labels, rows, np.random.default_rng(seed))
    kept = set(chosen)
    others = [row for row in range(len(labels)) if row not in kept]
    unlabelled = task.unlabelled
    if others:
        hidden = train.select(others).remove_columns("label")
        parts = [hidden] if unlabelled is None else [hidden, unlabelled]
        unlabelled = concatenate_datasets(parts)
    splits = {**task.splits, "train": train.select(chosen)}
    return attrs.evolve(task, splits=splits, unlabelled=unlabelled)


def texts_of(values: Sequence[Any]) -> list[str]:
    """A column as texts; the words of a token task's rows are joined."""
    return [" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]


def normalised(example: Any) -> Any:
    """A text, or several, in the form in which equal texts are equal: NFKC, case-folded, single blanks."""
    if isinstance(example, str):
        return " ".join(unicodedata.normalize("NFKC", example).casefold().split())
    return tuple(normalised(part) for part in example)


def rows_seen_in(train: Iterable[Any], other: Iterable[Any]) -> list[bool]:
    """For each of `other` whether it stands in `train`, by `normalised`; pairs are tuples of texts."""
    seen = {normalised(example) for example in train}
    return [normalised(example) in seen for example in other]
