"""Pools of auxiliary examples. In: names of tasks and text files. Out: `Pool`s, and which rows to use.

Text files are mapped from disk and read piece by piece, so they may be larger than memory. Labelled tasks are read into
memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from aang_core.batch.protocols import Backbone
from aang_core.batch.rows import Origin, Row
from aang_core.data.auxiliary import load_auxiliary
from aang_core.data.duplicates import SHORTEST_PASSAGE, joined, texts_of, word_count
from aang_core.data.readers import SUFFIXES
from aang_core.data.spec import LABEL
from aang_core.data.task import Task
from aang_core.errors import TaskError, one_message
from aang_core.randomness import derived_seed
from aang_core.registry.registry import Registry
from aang_core.selection.settings import SelectionConfig
from aang_core.train.session import laid_rows

if TYPE_CHECKING:
    from datasets import Dataset

_CHUNK = 2048
DEFAULT_TOP = 1000
_SHOWN = 10
_CLASSES_PER_ROW = 0.5
"""More different whole numbers than this share of the rows are quantities, not classes."""


@attrs.frozen(eq=False, kw_only=True)
class Pool:
    """The training examples of one task, or the lines of a text file.

    :param name: short, and unlike any other pool's.
    :param spec: as the user gave it.
    :param number: its place among the pools, from 0; −1 for the target's own rows.
    :param task: None for a text file, whose lines have no labels.
    """

    name: str
    spec: str
    number: int
    data: Dataset
    task: Task | None

    def __len__(self) -> int:
        return len(self.data)

    def sample(self, most: int, seed: int, excluded: frozenset[int] = frozenset()) -> list[int]:
        """At most `most` rows that are not `excluded`, drawn evenly, sorted; for each pool from a stream of its own."""
        wanted = min(most, len(self) - len(excluded))
        random = np.random.default_rng(derived_seed(seed, "selection-sample", self.number + 1))
        drawn = random.choice(len(self), min(len(self), wanted + len(excluded)), replace=False)
        return sorted([row for row in drawn.tolist() if row not in excluded][:wanted])

    def examples(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Some rows as mappings from column to value."""
        if not numbers:
            return []
        columns = self.data[list(numbers)]
        values = zip(*columns.values(), strict=True)
        return [dict(zip(columns, each, strict=True)) for each in values]

    def rows(self, backbone: Backbone, numbers: Sequence[int]) -> list[Row]:
        """Some rows as the encoder reads them; a token task's labels lie on the words' first positions."""
        origins = [Origin(self.name, number, 0) for number in numbers]
        kind = "" if self.task is None else self.task.kind
        return laid_rows(backbone, kind, self.examples(numbers), origins)


def target_pool(task: Task, spec: str) -> Pool:
    """The target's own training rows, as a pool that nothing is chosen from."""
    return Pool(name=task.name, spec=spec, number=-1, data=task.splits["train"], task=task)


def load_pools(
    specs: Iterable[str], reads: Sequence[str], registry: Registry, drop_empty: bool = False
) -> tuple[Pool, ...]:
    """The pools in the order given.

    :param specs: as for `task.load_task`, or a text file (any file that is no data file and no TOML).
    :param reads: the input columns that the encoder reads, the required one first.
    :param drop_empty: as for `task.load_task`; empty lines of a text file are never scored.
    :raises TaskError: where one cannot be read, or two have the same short name.
    """
    pools: dict[str, Pool] = {}
    for number, spec in enumerate(specs):
        pool = _load_pool(spec, number, reads, registry, drop_empty)
        if pool.name in pools:
            raise TaskError(
                f"the pools {pools[pool.name].spec} and {spec} have the same name {pool.name!r}; give one "
                'of them another (a line name = "…" in its task.toml, or another file name)'
            )
        pools[pool.name] = pool
    return tuple(pools.values())


def _load_pool(
    spec: str, number: int, reads: Sequence[str], registry: Registry, drop_empty: bool
) -> Pool:
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix.lower() not in (*SUFFIXES, ".toml"):
        name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "texts"
        return Pool(name=name, spec=spec, number=number, data=_lines(path, reads[0]), task=None)
    [(name, task)] = load_auxiliary([spec], reads, registry, drop_empty).items()
    return Pool(name=name, spec=spec, number=number, data=task.splits["train"], task=task)


def _lines(path: Path, column: str) -> Dataset:
    """A text file as a data set that stays on disk, a row a line."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # the reading of all pools has a bar of its own
    try:
        loaded = datasets.load_dataset("text", data_files=str(path), split="train")
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as cause:
        reason = cause.__cause__ or cause
        raise TaskError(
            f"cannot read the text file {path}: {reason}; expected UTF-8, one text a line"
        ) from cause
    finally:
        if shown:
            datasets.enable_progress_bars()
    return loaded.rename_column("text", column) if column != "text" else loaded


@attrs.frozen(eq=False, kw_only=True)
class Scan:
    """What reading a pool once has shown.

    :param leaks: rows that share a text with the target's dev or test.
    :param empty: rows without any text.
    :param digest: of all its texts and labels, to know it again.
    """

    leaks: tuple[int, ...]
    empty: tuple[int, ...]
    digest: str

    @property
    def excluded(self) -> frozenset[int]:
        """Rows that are neither trained on nor scored."""
        return frozenset((*self.leaks, *self.empty))


def judged_texts(task: Task) -> frozenset[str]:
    """Every text of the target's dev and test, in the form in which equal texts are equal."""
    found: set[str] = set()
    for name, split in task.splits.items():
        if name != "train":
            for _, columns in _chunks(split):
                for example in zip(*columns.values(), strict=True):
                    found |= _forms(example)
    return frozenset(found)


def scan(pool: Pool, judged: frozenset[str], advanced: Callable[[int], None]) -> Scan:
    """Read a pool once.

    A row leaks where the whole of it, or one of its texts of five words or more, stands in dev or test.

    :param judged: what `judged_texts` gives. :param advanced: told how many rows were read.
    """
    leaks, empty = [], []
    digest = hashlib.sha256()
    for start, columns in _chunks(pool.data):
        for row, example in enumerate(zip(*columns.values(), strict=True), start):
            forms = _forms(example)
            if not any(part.strip() for part in example):
                empty.append(row)
            elif forms & judged:
                leaks.append(row)
            digest.update("\x1e".join(example).encode() + b"\x1f")
        if pool.task is not None:
            digest.update(repr(pool.data[start : start + _CHUNK][LABEL]).encode())
        advanced(min(_CHUNK, len(pool) - start))
    return Scan(leaks=tuple(leaks), empty=tuple(empty), digest=digest.hexdigest()[:16])


def _chunks(split: Dataset) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """(first row, its input columns as texts), a bounded number of rows at a time."""
    for start in range(0, len(split), _CHUNK):
        columns: Mapping[str, list[Any]] = split[start : start + _CHUNK]
        yield start, {name: texts_of(c) for name, c in columns.items() if name != LABEL}


def _forms(example: Sequence[str]) -> set[str]:
    parts = [joined(text) for text in example]
    return {joined(tuple(example))} | {p for p in parts if word_count(p) >= SHORTEST_PASSAGE}


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
    whole: Task,
    target: Task,
    pools: Sequence[Pool],
    progress: Callable[[str, int, int], None],
) -> Checked:
    """Read every pool once and decide which rows are trained on, scored and left out.

    :param whole: the target with all its rows: a dev row that this seed does not keep leaks into another seed's run.
    :param target: with this seed's.
    :raises TaskError: names every fault: leaks, single classes, quantities as classes, pools that are the target or
        have nothing to score, and a `top` that is larger than what can be scored.
    """
    scans = _scans(whole, pools, progress)
    faults = _label_faults(target, "the target")
    for pool, seen in zip(pools, scans, strict=True):
        if pool.task is not None:
            if _same(pool.task, whole):  # it holds the very rows that the target is trained on
                faults.append(f"the pool {pool.spec} is the target itself; leave it out")
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
    faults += _size_faults(left, config.top)
    if faults:
        raise TaskError(one_message(faults, f"selecting for {target.name}"))
    examples = target_pool(target, config.target)
    return Checked(
        scans=scans,
        examples=examples,
        target_sample=examples.sample(config.examples_per_task or len(examples), config.seed),
        samples=samples,
        kept_out=kept_out,
        top=config.top or min(DEFAULT_TOP, sum(left.values())),
    )


def _size_faults(left: Mapping[str, int], top: int) -> Iterator[str]:
    """Pools without a row, and a `top` that is too large.

    :param left: rows that can be scored, by pool.
    """
    for name, rows in left.items():
        if not rows:
            yield f"the pool {name} has no row left to score; give another"
    total = sum(left.values())
    if top > total:
        yield (
            f"top is {top}, and the pools have {total} rows that can be scored "
            f"({', '.join(f'{name} {n}' for name, n in left.items())}); lower it, or add pools"
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


def _same(one: Task, other: Task) -> bool:
    """Whether two tasks begin their dev with the same examples."""
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
