"""Stage 4, telling texts apart by their vectors: ``quick-thoughts``, ``first-sentence`` and ``contrastive``.

Rows 2i and 2i + 1 belong together; the other rows of the step are the negatives, so a
step's rows must stay together. A row that would also be a right answer (the same text, or another right place) is not
a negative and is left out of the sum. R rows of a step, C candidates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.parts import backbone_of, new_head
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Hidden, Layout, Packed, Targets
from aang_core.errors import ConfigError
from aang_text.data.documents import say_what_is_cut


class TwoEncoders(nn.Module):
    """Two linear maps, one for the asking and one for the answering text: [M, H] → [M, H] each."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.ask, self.answer = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)


class Projection(nn.Module):
    """Dense and tanh, [M, H] → [M, H]: SimCSE's head, used in training only."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)

    def forward(self, states: Tensor) -> Tensor:
        return torch.tanh(self.dense(states))


class InBatch(ABC):
    """What the three share: each target is a row and its partner (index [M, 2]), chosen among candidates.

    The candidates of a target are the partners of all targets; ``extra["allowed"]`` [M, M] says which of them take
    part: its own, on the diagonal, and every true negative.
    """

    name = ""
    min_rows = 4
    row_multiple = 2
    pointwise = False

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.width = int(backbone_of(binding, self.name).hidden_size)

    def pairs(self, rows: int) -> Tensor:
        """[M, 2]: rows, and their partners; by default the even rows with the odd ones."""
        return torch.arange(rows).reshape(-1, 2)

    @abstractmethod
    def excluded(self, one: Tensor, other: Tensor) -> Tensor:
        """[M, M] bool: whether the text at `other` [1, M, 2], not the partner, is no wrong answer for `one` [M, 1, 2].

        A text stands at (document, place in it).
        """

    def targets(self, packed: Packed) -> Targets:
        """One target for each pair; `value` is its own number among the candidates."""
        index = self.pairs(len(packed.lengths))
        number = torch.arange(len(index))
        places = torch.tensor([(each.document, each.index) for each in packed.origins])
        asking, partners = index.unbind(1)
        unfit = self.excluded(places[asking][:, None], places[partners][None])
        unfit |= asking[:, None] == partners[None]
        allowed = ~unfit | (number[:, None] == number)
        return Targets(index=index, value=number, level="row", extra={"allowed": allowed})

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] cross-entropies over the candidates, in nats."""
        if not len(targets):
            return hidden.states.new_zeros(0)
        scores = self.scores(head, hidden, targets.index.to(hidden.states.device))
        allowed = targets.extra["allowed"].to(scores.device)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return F.cross_entropy(scores, targets.value.to(scores.device), reduction="none")

    @abstractmethod
    def scores(self, head: nn.Module, hidden: Hidden, index: Tensor) -> Tensor:
        """[M, M]: how well each candidate (column) answers each row."""

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is fitted."""
        return {}


class QuickThoughts(InBatch):
    """Which of the step's other sentences stands beside this one? (Logeswaran and Lee, 2018, §3)

    Every row asks, with one map, and every other row is a candidate, with another map; the score is the inner
    product. A sentence that stands beside the asking one by chance is no candidate.
    """

    name = "quick-thoughts"
    layout = Layout("neighbours")

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        say_what_is_cut(binding, self.name, self.layout)

    def pairs(self, rows: int) -> Tensor:
        every = torch.arange(rows)
        return torch.stack([every, every ^ 1], -1)

    def excluded(self, one: Tensor, other: Tensor) -> Tensor:
        gap = (one - other).abs()
        return (gap[..., 0] == 0) & (gap[..., 1] <= 1)

    def head(self) -> nn.Module:
        """Two maps, in their initial state."""
        return new_head(self.binding, self.name, lambda: TwoEncoders(self.width))

    def scores(self, head: nn.Module, hidden: Hidden, index: Tensor) -> Tensor:
        both: Any = head
        asking, answering = (
            both.ask(hidden.first(index[:, 0])),
            both.answer(hidden.first(index[:, 1])),
        )
        product: Tensor = asking @ answering.T
        return product


class FirstSentence(QuickThoughts):
    """Which of the step's sentences comes from the document that this first sentence opens?

    Only the first sentences ask. Another sentence of the same document, drawn beside it, is no candidate.
    """

    name = "first-sentence"
    layout = Layout("neighbours", "first")

    def pairs(self, rows: int) -> Tensor:
        return InBatch.pairs(self, rows)

    def excluded(self, one: Tensor, other: Tensor) -> Tensor:
        return one[..., 0] == other[..., 0]


class Contrastive(InBatch):
    """Which of the step's texts is the same one under another dropout mask? (SimCSE, §3, unsupervised)

    The score is the cosine over a temperature; negatives are the second views of the other texts.
    """

    name = "contrastive"
    layout = Layout("two-views")

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.temperature = float(binding.options.get("temperature", 0.05))
        if not self.temperature > 0:
            raise ConfigError(
                f"[primitives.{self.name}] temperature: expected a number over 0, "
                f"found {self.temperature:g}"
            )

    def excluded(self, one: Tensor, other: Tensor) -> Tensor:
        return (one == other).all(-1)

    def head(self) -> nn.Module:
        """Dense and tanh, in their initial state."""
        return new_head(self.binding, self.name, lambda: Projection(self.width))

    def scores(self, head: nn.Module, hidden: Hidden, index: Tensor) -> Tensor:
        one, other = (F.normalize(head(hidden.first(rows)), dim=-1) for rows in index.unbind(1))
        product: Tensor = one @ other.T
        return product / self.temperature
