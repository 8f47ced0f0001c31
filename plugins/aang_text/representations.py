"""Stage 3: which positions each position may attend to."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from aang_core.batch.protocols import Binding
from aang_core.batch.stream import directed
from aang_core.errors import ConfigError


class Directed:
    """A rule that depends on a row's length alone: ``full``, ``causal`` or ``anticausal``."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def allowed(self, length: int, generator: Generator) -> Tensor:  # noqa: ARG002
        """[T, T] bool."""
        return directed(self.tag, length)

    def order(self, length: int, generator: Generator) -> Tensor:  # noqa: ARG002
        """[T]: ranks from left to right, or from right to left."""
        ranks = torch.arange(length)
        return ranks.flip(0) if self.tag == "anticausal" else ranks


class RandomFactorized:
    """Each position keeps itself, and every other position with the probability `keep`.

    The public code of the paper draws one matrix for a whole batch, and its diagonal is off; here
    every row has its own and a position always sees itself. With the option ``shared`` all rows of a
    batch are given (the top left corner of) one matrix.
    """

    tag = "matrix"

    def __init__(self, binding: Binding) -> None:
        keep = binding.options.get("keep", 0.6)
        if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 <= keep <= 1:
            raise ConfigError(
                "[primitives.random-factorized] keep: expected a probability from 0 to 1, "
                f"found {keep!r}"
            )
        self.keep = float(keep)
        self.shared = bool(binding.options.get("shared", False))

    def allowed(self, length: int, generator: Generator) -> Tensor:
        """[T, T] bool with a True diagonal."""
        draw = _corner if self.shared else _square
        draws = draw(length, generator)
        return (draws < self.keep) | torch.eye(length, dtype=torch.bool)

    def order(self, length: int, generator: Generator) -> Tensor:  # noqa: ARG002
        """[T]: a matrix of kept pairs has no order of its own; left to right."""
        return torch.arange(length)


class Permuted:
    """A random factorisation order for each row; a position sees those before it, and itself."""

    tag = "order"

    def allowed(self, length: int, generator: Generator) -> Tensor:
        """[T, T] bool, from a fresh order."""
        rank = self.order(length, generator)
        return rank[None, :] <= rank[:, None]

    def order(self, length: int, generator: Generator) -> Tensor:
        """[T]: a uniform permutation."""
        return torch.randperm(length, generator=generator)


def bidirectional(binding: Binding) -> Directed:  # noqa: ARG001
    """Every position sees the whole row."""
    return Directed("full")


def left_to_right(binding: Binding) -> Directed:  # noqa: ARG001
    """A position sees itself and what is left of it."""
    return Directed("causal")


def right_to_left(binding: Binding) -> Directed:  # noqa: ARG001
    """A position sees itself and what is right of it."""
    return Directed("anticausal")


def permuted(binding: Binding) -> Permuted:  # noqa: ARG001
    """A position sees itself and what comes before it in a random order."""
    return Permuted()


def _square(length: int, generator: Generator) -> Tensor:
    """[T, T] uniform numbers."""
    return torch.rand(length, length, generator=generator)


def _corner(length: int, generator: Generator) -> Tensor:
    """[T, T] uniform numbers that agree, for all lengths, while `generator` stands still.

    A copy of the generator is read, so that all rows of a batch, between which nothing else is drawn,
    see the same numbers. Pair (i, j) takes number m² + m + i − j, m = max(i, j), of the sequence:
    then a short row's matrix is the top left corner of a long one's.
    """
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    numbers = torch.rand(length * length, generator=copy, dtype=torch.float64)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    m = torch.maximum(i, j)
    return numbers[m * m + m + i - j]
