"""The controls that a selection has to beat: random rows, and random rows of the same tasks.

``random-matched`` takes the rows of another selection and shuffles them within each task: for every N, its N best hold
as many rows of each task as the N best of the other. So it separates the choice of examples from the choice of tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aang_core.data.auxiliary import Selection, read_selection
from aang_core.errors import ConfigError, one_message
from aang_core.randomness import derived_seed
from aang_core.selection.protocols import SelectionContext, Window


class Random:
    """A number drawn uniformly for each row; the same whatever the windows."""

    def __init__(self, context: SelectionContext) -> None:
        self.context = context
        self._drawn = cache(self._draw)

    def prepare(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def scores(self, window: Window) -> Tensor:
        """[B] in [0, 1)."""
        return torch.from_numpy(self._drawn(window.pool.number)[np.array(window.numbers)])

    def _draw(self, number: int) -> NDArray[np.float64]:
        seed = derived_seed(self.context.seed, "random-selection", number)
        return np.random.default_rng(seed).random(len(self.context.pools[number]))


class RandomMatched:
    """The rows of another selection, shuffled within each task.

    Option ``like``: that selection's directory.

    :raises ConfigError: where there is none, or it is of another target, other pools or another sample.
    """

    def __init__(self, context: SelectionContext) -> None:
        self.context = context
        like = str(context.options["like"])
        if not like:
            raise ConfigError(
                "random-matched needs the selection whose tasks it matches; give --like DIR, a directory that "
                "`aang select` has written"
            )
        self.like = read_selection(Path(like).expanduser())
        _check(self.like, context)
        self.table = self._shuffled()

    def prepare(self) -> dict[str, Tensor]:
        """Nothing: the shuffle is quick."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def scores(self, window: Window) -> Tensor:
        """[B] in (0, 1]: 1 for the first rank; −inf for rows that the other selection does not rank."""
        table = self.table[window.pool.name]
        found = [table.get(row, -np.inf) for row in window.numbers]
        return torch.tensor(found, dtype=torch.float64)

    def _shuffled(self) -> dict[str, dict[int, float]]:
        """Task → row → score. The other's ranks stay with their tasks; only the rows change places."""
        like = self.like
        score = 1.0 - np.arange(len(like)) / len(like)
        tables: dict[str, dict[int, float]] = {}
        for number, name in enumerate(like.names):
            own = like.task == number
            seed = derived_seed(self.context.seed, "random-matched", number)
            rows = np.random.default_rng(seed).permutation(like.row[own])
            tables[name] = dict(zip(rows.tolist(), score[own].tolist(), strict=True))
        return tables


def _check(like: Selection, context: SelectionContext) -> None:
    """Whether a selection ranks the rows that are candidates here."""
    faults = []
    names = [pool.name for pool in context.pools]
    if like.summary["target"] != context.examples.spec:
        faults.append(f"its target is {like.summary['target']}, not {context.examples.spec}")
    if list(like.names) != names:
        faults.append(f"its pools are {', '.join(like.names)}, not {', '.join(names)}")
    else:
        for number, (pool, sample) in enumerate(zip(context.pools, context.samples, strict=True)):
            taken = set(like.row[like.task == number].tolist())
            missing = len(taken & set(sample)) + sum(row >= len(pool) for row in taken)
            if missing:
                faults.append(
                    f"{missing} of its rows of {pool.name} are kept out here; give the --seed and "
                    "--examples-per-task that it was made with"
                )
    if faults:
        raise ConfigError(one_message(faults, f"--like {like.directory}"))
