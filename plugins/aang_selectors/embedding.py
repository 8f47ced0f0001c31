"""``embedding``: how close an example is to the target's training examples, in the pretrained encoder's space."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from aang_core.errors import ConfigError
from aang_core.selection.protocols import SelectionContext, Window


class Embedding:
    """The mean of the `neighbours` greatest cosines to the target's examples; nothing is trained.

    The target's examples are the `target_sample` (T of them, at most ``examples_per_task``), vectors are the pooled
    states of the last layer, as they are: neither centred nor whitened.
    """

    def __init__(self, context: SelectionContext) -> None:
        self.context, self.pooling = context, context.pooling()
        self.neighbours = int(context.options["neighbours"])
        if not 1 <= self.neighbours <= len(context.target_sample):
            raise ConfigError(
                f"option neighbours: expected from 1 to {len(context.target_sample)} (the target's examples), "
                f"found {self.neighbours}"
            )
        self.near = torch.zeros(0)

    def prepare(self) -> dict[str, Tensor]:
        """The target's vectors [T, H], of length 1."""
        context = self.context
        rows = context.examples.rows(context.backbone, context.target_sample)
        self.near = F.normalize(context.vectors(rows, self.pooling).double(), dim=1)
        return {"target": self.near}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The same vectors."""
        self.near = state["target"]

    def scores(self, window: Window) -> Tensor:
        """[B] in [−1, 1]."""
        context = self.context
        rows = window.pool.rows(context.backbone, window.numbers)
        vectors = F.normalize(context.vectors(rows, self.pooling).double(), dim=1)
        return (vectors @ self.near.t()).topk(self.neighbours, dim=1).values.mean(1)
