"""What must hold before a selection begins: found from the data alone, every fault at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from aang_core.data.spec import LABEL
from aang_core.data.task import Task
from aang_core.errors import TaskError, one_message
from aang_core.selection.pools import Pool, Scan, judged_texts, scan, target_pool
from aang_core.selection.settings import SelectionConfig

DEFAULT_TOP = 1000
_SHOWN = 10
_CLASSES_PER_ROW = 0.5
"""More different whole numbers than this share of the rows are quantities, not classes."""


@attrs.frozen(eq=False, kw_only=True)
class Checked:
    """What the checks leave to work with; lists run over the pools.

    :param examples: the target's own rows; `target_sample` are those to train on.
    :param samples: rows to train on. :param kept_out: rows that are not scored.
    :param top: how many of the best the summary counts.
    """

    scans: Sequence[Scan]
    examples: Pool
    target_sample: Sequence[int]
    samples: Sequence[Sequence[int]]
    kept_out: Sequence[frozenset[int]]
    top: int


def checked(
    config: SelectionConfig,
    target: Task,
    pools: Sequence[Pool],
    progress: Callable[[str, int, int], None],
) -> Checked:
    """Read every pool once and settle which rows are trained on, scored and left out.

    :raises TaskError: names every fault: leaks, single classes, quantities as classes, pools that are the target or
        have nothing to score, and a `top` that is larger than what can be scored.
    """
    scans = _scans(target, pools, progress)
    faults = [*_label_faults(target, "the target"), *_target_faults(target, pools)]
    for pool, seen in zip(pools, scans, strict=True):
        if pool.task is not None:
            faults += _label_faults(pool.task, f"the pool {pool.name}")
        if seen.leaks and not config.exclude_leaks:
            faults.append(_leak_fault(pool, seen, target))
    samples = []
    for pool, seen in zip(pools, scans, strict=True):
        usable = len(pool) - len(seen.excluded)
        most = min(config.examples_per_task, usable // 2)
        samples.append(pool.sample(most, config.seed, seen.excluded))
    kept_out = [seen.excluded | set(sample) for seen, sample in zip(scans, samples, strict=True)]
    left = {p.name: len(p) - len(out) for p, out in zip(pools, kept_out, strict=True)}
    faults += [
        f"the pool {name} has no row left to score; give another"
        for name, n in left.items()
        if not n
    ]
    total = sum(left.values())
    if config.top > total:
        faults.append(
            f"top is {config.top}, and the pools have {total} rows that can be scored "
            f"({', '.join(f'{name} {n}' for name, n in left.items())}); lower it, or add pools"
        )
    if faults:
        raise TaskError(one_message(faults, f"selecting for {target.name}"))
    examples = target_pool(target, config.target)
    return Checked(
        scans=scans,
        examples=examples,
        target_sample=examples.sample(config.examples_per_task or len(examples), config.seed),
        samples=samples,
        kept_out=kept_out,
        top=config.top or min(DEFAULT_TOP, total),
    )


def _scans(
    target: Task, pools: Sequence[Pool], progress: Callable[[str, int, int], None]
) -> list[Scan]:
    judged = judged_texts(target)
    total, done = sum(map(len, pools)), 0
    what = "reading the pools"

    def advanced(rows: int) -> None:
        nonlocal done
        done += rows
        progress(what, done, total)

    return [scan(pool, judged, advanced) for pool in pools]


def _label_faults(task: Task, what: str) -> list[str]:
    """Whether there is anything to tell apart, and whether classes are classes."""
    if task.kind != "class":
        return []
    values = set(task.splits["train"][LABEL][:])
    if len(values) < 2:
        name = task.label_names[next(iter(values))] if values else "none"
        return [
            f"{what} ({task.name}) has only one class in train ({name}); expected two or more: nothing can be "
            "learnt from its labels"
        ]
    rows = len(task.splits["train"])
    if all(_is_number(name) for name in task.label_names) and len(values) > _CLASSES_PER_ROW * rows:
        return [
            f"{what} ({task.name}) has {len(values)} classes in {rows} rows, all of them numbers, and a "
            'cross-entropy would learn nothing from them; say kind = "regression" in its task.toml'
        ]
    return []


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("-").isdigit()


def _target_faults(target: Task, pools: Sequence[Pool]) -> list[str]:
    """Pools that are the target itself: they hold the very rows that it is trained on."""
    return [
        f"the pool {pool.spec} is the target itself; leave it out"
        for pool in pools
        if pool.task is not None and _same(pool.task, target)
    ]


def _same(one: Task, other: Task) -> bool:
    """Whether two tasks begin their dev with the same examples: `train_rows` leaves dev alone."""
    mine, theirs = one.splits["dev"], other.splits["dev"]
    return bool(mine.column_names == theirs.column_names and mine[:20] == theirs[:20])


def _leak_fault(pool: Pool, seen: Scan, target: Task) -> str:
    shown = ", ".join(map(str, seen.leaks[:_SHOWN]))
    more = len(seen.leaks) - _SHOWN
    rows = f"{shown} and {more} more" if more > 0 else shown
    return (
        f"the pool {pool.name} shares texts with dev or test of {target.name} in {len(seen.leaks)} of its "
        f"{len(pool)} rows (from 0: {rows}); leave these rows out with --exclude-leaks"
    )
