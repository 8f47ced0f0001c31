"""Pairs of labelled rows, of one class or of two, balanced over the classes: the layout relation ``same-label``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator

from aang_core.errors import TaskError


class LabelledPairs:
    """Draws pairs of rows by their classes.

    :param labels: the class of each row.
    :raises TaskError: where there are fewer than two rows, or no two of one class or of two classes.
    """

    def __init__(self, labels: Sequence[int], name: str) -> None:
        found: dict[int, list[int]] = {}
        for row, label in enumerate(labels):
            found.setdefault(int(label), []).append(row)
        self.classes = [found[label] for label in sorted(found)]
        self.repeated = [rows for rows in self.classes if len(rows) > 1]
        if not self.repeated and len(self.classes) < 2:
            raise TaskError(
                f"{name}: expected labelled rows of one class or of two to pair, found {len(labels)}"
            )

    def draw(self, count: int, generator: Generator) -> list[tuple[int, int, int]]:
        """`count` pairs, every second one of one class: two rows, and 1 where their class is the same.

        Each class is as likely as any other, whatever its size; within a pair the rows differ.
        """
        return [self._pair(i % 2 == 0, generator) for i in range(count)]

    def _pair(self, same: bool, generator: Generator) -> tuple[int, int, int]:
        if not self.repeated or (not same and len(self.classes) > 1):
            one, other = (self.classes[c] for c in _two(len(self.classes), generator))
            return _pick(one, generator), _pick(other, generator), 0
        rows = self.repeated[_below(len(self.repeated), generator)]
        first, second = _two(len(rows), generator)
        return rows[first], rows[second], 1


def _below(size: int, generator: Generator) -> int:
    return int(torch.randint(size, (), generator=generator))


def _pick(rows: Sequence[int], generator: Generator) -> int:
    return rows[_below(len(rows), generator)]


def _two(size: int, generator: Generator) -> tuple[int, int]:
    """Two different numbers below `size`."""
    one = _below(size, generator)
    other = _below(size - 1, generator)
    return one, other + (other >= one)
