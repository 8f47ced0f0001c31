"""Splitting of step 2. In: rows and their labels. Out: the row numbers of each part, or the missing splits.

Everything is deterministic: the generator is an argument, and drawn rows keep their order. The rows of a seed
(`draw_train_rows`, `draw_dev_rows`, `draw_unlabelled_rows`, `split_anew`) depend only on the task, the settings and the
seed, so every method gets the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from aang_core.data.duplicates import repeats_together
from aang_core.data.labels import Labels
from aang_core.data.metrics import standard_error
from aang_core.data.spec import LABEL
from aang_core.errors import TaskError

if TYPE_CHECKING:
    from datasets import Dataset

    from aang_core.data.task import Task

SPLIT_SEED = 0
"""Splits that aang makes are the same in every run, whatever the run's seed."""

SHARE = 0.15
"""Of the labelled rows, what goes into each split that aang has to make."""

UNSURE = 0.025
"""From this standard error on, the rows of a split that was made are said to be few: 2.5 points, or 400 rows."""

_CALLED = {"train": "training", "dev": "dev"}
_MADE = "train was split"

Rows = dict[str, dict[str, list[Any]]]
"""Values by split and column."""


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


def labels_together(kind: str, labels: Sequence[Any], groups: Sequence[Sequence[int]]) -> list[Any]:
    """The label by which each group of rows is split. If its rows disagree: the rarest class, or all labels."""
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


def with_missing_splits(rows: Rows, labels: Labels) -> tuple[Rows, tuple[str, ...]]:
    """Make dev, and test with it, out of train where there is no dev. Equal texts stay together, so that none leaks.

    :return: the rows of every split, and remarks that say what was done.
    :raises TaskError: where a class of a single file has fewer than three examples.
    """
    if "dev" in rows:
        return rows, () if "test" in rows else ("there is no test split: scores are those of dev",)
    train = rows["train"]
    groups = repeats_together([values for column, values in train.items() if column != LABEL])
    keys = labels_together(labels.kind, labels.splits["train"], groups)
    new = ("dev",) if "test" in rows else ("dev", "test")
    _check_enough(labels, keys, new)
    parts = [
        sorted(row for group in part for row in groups[group])
        for part in split_rows(labels.kind, keys, [SHARE] * len(new))
    ]
    made = {
        split: {column: [values[i] for i in part] for column, values in train.items()}
        for split, part in zip(("train", *new), parts, strict=True)
    }
    sizes = ", ".join(f"{split} {len(part)}" for split, part in zip(made, parts, strict=True))
    how = "by class" if labels.kind == "class" else "at random"
    remark = f"{_MADE} {how}, always in the same way: {sizes}"
    if repeats := len(labels.splits["train"]) - len(groups):
        remark += f"; {repeats} repeats of a text were kept in one split with it"
    remark += _unsure(labels.kind, len(made["dev"][LABEL]))
    return {**made, **({"test": rows["test"]} if "test" in rows else {})}, (remark,)


def _unsure(kind: str, rows: int) -> str:
    """What a split of so few rows can tell; nothing where it can tell much."""
    error = standard_error(kind, rows)
    if error < UNSURE:
        return ""
    size = (
        f"a correlation on {rows} rows has a standard error of up to {error:.2f}"
        if kind == "regression"
        else f"a score on {rows} rows has a standard error of about {100 * error:.0f} points (at 50 %)"
    )
    return (
        f"; {size}, so smaller differences say nothing: label more rows, test on all of them (--folds 5), or average "
        f"over several splits (--split-anew {SHARE} {SHARE} --seed 0 --seed 1 …)"
    )


def without_split_remark(task: Task) -> Task:
    """The task without what was said of splits that were made for it, where every seed makes its own."""
    return attrs.evolve(task, remarks=tuple(r for r in task.remarks if not r.startswith(_MADE)))


def _check_enough(labels: Labels, keys: Sequence[Any], new: Sequence[str]) -> None:
    """Whether splits can be made: `keys` has a label for each different text."""
    least = 2 if labels.kind != "class" else 1
    if len(new) == 2:
        least = 3
        counts = Counter(keys) if labels.kind == "class" else Counter()
        classes = set(labels.splits["train"]) if labels.kind == "class" else ()
        small = [f"{labels.names[i]} ({counts[i]})" for i in sorted(classes) if counts[i] < least]
        if small:
            raise TaskError(
                "one single file is split by class into train, dev and test, so every class needs at "
                f"least {least} examples with different texts; too small: {', '.join(small)}. Add examples, or "
                "give the splits as files"
            )
    if len(keys) <= least:
        raise TaskError(
            f"{len(keys)} labelled example(s) with different texts are too few to make {' and '.join(new)} from"
        )


def draw_train_rows(task: Task, rows: int, seed: int) -> Task:
    """Keep `rows` labelled training rows and make the other ones unlabelled, as ``--train-rows`` asks.

    :param rows: how many; 0 keeps all.
    :raises TaskError: where there are fewer rows, or more classes than `rows`.
    """
    from datasets import concatenate_datasets

    train = task.splits["train"]
    if rows == 0:
        return task
    chosen = _drawn(task, "train", rows, np.random.default_rng(seed))
    kept = set(chosen)
    others = [row for row in range(len(train)) if row not in kept]
    unlabelled = task.unlabelled
    if others:
        hidden = train.select(others).remove_columns(LABEL)
        parts = [hidden] if unlabelled is None else [hidden, unlabelled]
        unlabelled = concatenate_datasets(parts)
    splits = {**task.splits, "train": train.select(chosen)}
    return attrs.evolve(task, splits=splits, unlabelled=unlabelled)


def draw_dev_rows(task: Task, rows: int, seed: int) -> Task:
    """Keep `rows` labelled dev rows, as ``--dev-rows`` asks; the others are not used at all.

    People with few labels have few for dev, too: a study that chooses by hundreds of them shows what nobody would get.

    :param rows: how many; 0 keeps all.
    :raises TaskError: where there are fewer rows, or more classes than `rows`.
    """
    if rows == 0:
        return task
    generator = np.random.default_rng([seed, 1])  # another draw than that of the training rows
    chosen = _drawn(task, "dev", rows, generator)
    return attrs.evolve(task, splits={**task.splits, "dev": task.splits["dev"].select(chosen)})


def draw_unlabelled_rows(task: Task, rows: int, seed: int) -> Task:
    """Keep `rows` training texts without a label, as ``--unlabelled-rows`` asks; the others are not used at all.

    A smaller draw of the same seed is part of a larger one, so that what more texts bring can be seen.

    :param rows: how many; 0 keeps all.
    :raises TaskError: where there are fewer.
    """
    if rows == 0:
        return task
    texts = task.unlabelled
    known = 0 if texts is None else len(texts)
    if texts is None or rows > known:
        raise TaskError(
            f"cannot draw {rows} training texts without a label from task {task.name!r}; expected at most {known}: "
            "texts have none where --train-rows N hides it, or where the file does (--unlabelled empty)"
        )
    chosen = np.random.default_rng([seed, 2]).permutation(known)[:rows]
    return attrs.evolve(task, unlabelled=texts.select(sorted(chosen.tolist())))


def _drawn(task: Task, split: str, rows: int, generator: np.random.Generator) -> list[int]:
    """Which rows of a split are kept, one of each class at least."""
    labels = task.splits[split][LABEL][:]
    classes = len(set(labels)) if task.kind == "class" else 1
    if not classes <= rows <= len(labels):
        raise TaskError(
            f"cannot draw {rows} {_CALLED[split]} rows from task {task.name!r}; expected from {classes} "
            f"(one of each class) to {len(labels)} (the whole {_CALLED[split]} split)"
        )
    return draw_labels(task.kind, labels, rows, generator)


def split_anew(task: Task, dev: float, test: float, seed: int) -> Task:
    """Pool the labelled rows, drop repeats, and split by class, as ``--split-anew`` asks.

    Official splits can be too small to tell anything, or share examples with train. Pooled, freed of repeats and split
    again for every seed, the same data shows how much of a difference is the luck of one draw.

    Of rows with equal inputs (`duplicates.normalised`) the first stays where all have one label; those with several
    labels are left out. Rows of a test split without labels are not used.

    :param dev, test: shares of the pool, above 0, together below 1; the rest is train.
    :raises TaskError: where a split would have no row, or train would lack a class.
    """
    pool = pooled(task)
    kept = _distinct(pool)
    labels = [pool[LABEL][row] for row in kept]
    generator = np.random.default_rng([seed, len(kept)])
    parts = split_rows(task.kind, labels, (dev, test), generator)
    names = ("train", "dev", "test")
    if not all(parts):
        empty = ", ".join(name for name, part in zip(names, parts, strict=True) if not part)
        raise TaskError(
            f"task {task.name!r} cannot be split anew: {len(kept)} distinct labelled examples leave no row for "
            f"{empty}; "
            "choose other shares, or bring more examples"
        )
    splits = {
        name: pool.select([kept[i] for i in part]) for name, part in zip(names, parts, strict=True)
    }
    return attrs.evolve(task, splits=splits)


def pooled(task: Task) -> Dataset:
    """The rows of all splits that have labels, in the order of the splits."""
    from datasets import concatenate_datasets

    labelled = [split for split in task.splits.values() if LABEL in split.column_names]
    return concatenate_datasets(labelled)


def _distinct(pool: Dataset) -> list[int]:
    """The first row of each distinct example that has one label."""
    columns = [pool[name][:] for name in pool.column_names if name != LABEL]
    labels = pool[LABEL][:]
    groups = repeats_together(columns)
    return [group[0] for group in groups if all(labels[i] == labels[group[0]] for i in group)]
