"""Stage 3: which positions each position may attend to."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Generator, Tensor

from aang_core.batch.protocols import Binding
from aang_core.errors import ConfigError


class Neighbourhood:
    """A patch sees itself, the patches around it and the first position, which sees and is seen by all.

    So a state far away is reached through the first position in two layers, or from patch to patch.
    """

    tag = "matrix"

    def __init__(self, binding: Binding) -> None:
        self.reach = int(binding.options["reach"])
        if self.reach < 0:
            raise ConfigError(
                f"[primitives.neighbourhood] reach: expected 0 or more, found {self.reach}"
            )

    def allowed(self, length: int, generator: Generator) -> Tensor:  # noqa: ARG002
        """[T, T] bool."""
        return neighbourhood(length, self.reach)

    def order(self, length: int, generator: Generator) -> Tensor:  # noqa: ARG002
        """[T]: a neighbourhood has no order; as the patches stand."""
        return torch.arange(length)


@cache
def neighbourhood(length: int, reach: int) -> Tensor:
    """[T, T] bool: patches on a square grid, at most `reach` lines and columns apart; the same tensor at every call."""
    grid = max(1, math.ceil(math.sqrt(max(0, length - 1))))
    place = torch.arange(length - 1)
    line, column = place // grid, place % grid
    near = torch.maximum((line[:, None] - line).abs(), (column[:, None] - column).abs()) <= reach
    allowed = torch.ones(length, length, dtype=torch.bool)
    allowed[1:, 1:] = near
    return allowed
