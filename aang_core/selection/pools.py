"""Where auxiliary examples are chosen from. In: names of tasks and text files. Out: `Pool`s, and rows to keep out.

Text files are mapped from disk and read piece by piece, so that they may be larger than memory. Labelled tasks are read
as every task is.
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
from aang_core.batch.rows import Origin, Row, lay_on_words
from aang_core.data.auxiliary import load_auxiliary
from aang_core.data.duplicates import SHORTEST_PASSAGE, joined, texts_of, word_count
from aang_core.data.readers import SUFFIXES
from aang_core.data.spec import LABEL
from aang_core.data.task import Task
from aang_core.errors import TaskError
from aang_core.randomness import derived_seed
from aang_core.registry.registry import Registry

if TYPE_CHECKING:
    from datasets import Dataset

_CHUNK = 2048


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
        rows = backbone.rows(self.examples(numbers), origins)
        if self.task is None or self.task.kind != "token":
            return rows
        return [attrs.evolve(r, label=lay_on_words(r.marks["word"], r.label)) for r in rows]


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
