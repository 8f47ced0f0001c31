"""Scores in shards. In: a selector and its pools. Out: one file for each window, and all scores read back.

A window is a range of `SelectionConfig.shard_rows` rows of one pool; its scores are written at once, completely or not
at all. Neither texts nor vectors outlive their window, so pools may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aang_core.errors import ModelError, RunError, one_message
from aang_core.files import load_tensors, save_tensors
from aang_core.selection.pools import Pool
from aang_core.selection.protocols import BoundSelector, Window


@attrs.frozen(eq=False)
class Shards:
    """Where the windows lie, and which of their rows are candidates.

    :param kept_out: for each pool the rows that are not scored; all others are candidates.
    """

    directory: Path
    pools: Sequence[Pool]
    kept_out: Sequence[frozenset[int]]
    shard_rows: int

    def windows(self) -> Iterator[tuple[Path, Window]]:
        """Each window that has candidates, with its shard's place."""
        for pool, out in zip(self.pools, self.kept_out, strict=True):
            for start in range(0, len(pool), self.shard_rows):
                stop = min(start + self.shard_rows, len(pool))
                numbers = [row for row in range(start, stop) if row not in out]
                if numbers:
                    name = f"{pool.number:03d}-{start:012d}.safetensors"
                    yield self.directory / name, Window(pool, numbers)

    def check(self) -> None:
        """Read every shard that is there.

        :raises RunError: where one is damaged, or holds other rows than its window; names them all.
        """
        faults = []
        for path, window in self.windows():
            if path.exists():
                try:
                    _read(path, window)
                except RunError as cause:
                    faults.append(f"{cause}; delete it, and it is scored again")
        if faults:
            raise RunError(one_message(faults, f"scores in {self.directory}"))

    def score(
        self,
        selector: BoundSelector,
        progress: Callable[[str, int, int], None],
        finished: Callable[[], None],
    ) -> None:
        """Score every window that has no shard yet.

        :param finished: called after each shard.
        :raises ModelError: where a score is not a number; nothing of its window is written.
        """
        total, done = sum(map(len, self.pools)) - sum(map(len, self.kept_out)), 0
        progress("scoring", done, total)
        for path, window in self.windows():
            if not path.exists():
                scores = selector.scores(window)
                _check_scores(scores, window)
                save_tensors(path, {"rows": torch.tensor(window.numbers), "scores": scores})
                finished()
            done += len(window.numbers)
            progress("scoring", done, total)

    def read(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]]:
        """Every candidate that a selector has not left out: the numbers of pools, rows and scores, [R] each."""
        pools, rows, scores = [], [], []
        for path, window in self.windows():
            found = _read(path, window)
            kept = found["scores"] > -torch.inf
            rows.append(found["rows"][kept].numpy())
            scores.append(found["scores"][kept].numpy())
            pools.append(np.full(len(rows[-1]), window.pool.number, dtype=np.int32))
        return np.concatenate(pools), np.concatenate(rows), np.concatenate(scores)


def _read(path: Path, window: Window) -> dict[str, Tensor]:
    found = load_tensors(path)
    if found.keys() != {"rows", "scores"} or found["rows"].tolist() != list(window.numbers):
        raise RunError(f"{path} holds other rows than these settings ask for")
    return found


def _check_scores(scores: Tensor, window: Window) -> None:
    pool, rows = window.pool.name, window.numbers
    if len(scores) != len(rows):
        raise ModelError(f"{pool}: expected {len(rows)} scores, found {len(scores)}")
    wrong = (scores.isnan() | (scores == torch.inf)).nonzero().flatten().tolist()
    if wrong:
        raise ModelError(
            f"{pool} row {rows[wrong[0]]}: expected a number as score, found none; the training before it has "
            "diverged: choose a lower learning rate, or fp32"
        )
