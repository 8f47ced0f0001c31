"""Stage 4, losses over the vocabulary: ``denoise``, ``next-token`` and ``span-boundary``.

Each splits its losses into `features` ([M, E], its own) and `decode` (the vocabulary product), so that
objectives which share a decoder can have one product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.parts import backbone_of, new_head
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import SINGLE, Hidden, Packed, Targets
from aang_core.errors import ConfigError, PluginError
from aang_text.encoder.tokens import IDS

_WAVES = 16
_LONGEST_WAVE = 10_000.0
DECODERS = ("tied", "untied")
LONGEST_SPAN = 32


class VocabularyOutput:
    """What the three share. The option ``decoder``: ``tied`` to the encoder's embeddings, or not."""

    name = ""
    layout = SINGLE
    min_rows = 1
    row_multiple = 1
    pointwise = True

    def __init__(self, binding: Binding) -> None:
        decoder = binding.options.get("decoder", "tied")
        if decoder not in DECODERS:
            raise ConfigError(
                f"[primitives.{self.name}] decoder: expected one of {', '.join(DECODERS)}, "
                f"found {decoder!r}"
            )
        self.binding, self.tied = binding, decoder == "tied"
        self.backbone = backbone_of(binding, self.name, "vocabulary_head")

    def features(self, head: Any, hidden: Hidden, targets: Targets) -> Tensor:
        """[M, E], what the decoder is multiplied with."""
        projected: Tensor = head.project(hidden.states[targets.index.to(hidden.states.device)])
        return projected

    def decode(self, head: Any, features: Tensor) -> Tensor:
        """[M, V] logits."""
        return F.linear(features, head.decoder_weight, head.bias)

    def score(self, logits: Tensor, targets: Targets) -> Tensor:
        """[M] cross-entropies, in nats, from logits [M, V]."""
        return F.cross_entropy(logits, targets.value.to(logits.device), reduction="none")

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] cross-entropies, in nats."""
        return self.score(self.decode(head, self.features(head, hidden, targets)), targets)

    def head(self) -> nn.Module:
        """A vocabulary head, the checkpoint's own where it has one."""
        head: nn.Module = self.backbone.vocabulary_head(tied=self.tied)
        return head

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is fitted."""
        return {}


class Denoise(VocabularyOutput):
    """The original token at each selected position (BERT, §3.1)."""

    name = "denoise"

    def targets(self, packed: Packed) -> Targets:
        index = packed.selected.nonzero().squeeze(1)
        return Targets(index=index, value=packed.original[IDS][index])


class NextToken(VocabularyOutput):
    """The token that comes next in the representation's own order.

    Left-to-right: position i predicts i + 1; right-to-left: i − 1; permuted: the position that follows in
    the order, of which the head is told how far away it lies. Special positions are read (the first
    token is predicted from them) but never predicted. The original tokens are the targets, whatever
    the transform shows.
    """

    name = "next-token"

    def targets(self, packed: Packed) -> Targets:
        """:raises PluginError: where the representation has no order to follow."""
        place, row, n = packed.positions, packed.row_of, len(packed.special)
        if packed.tag == "causal":
            rank = place
        elif packed.tag == "anticausal":
            rank = -place
        elif packed.tag == "order" and packed.order is not None:
            rank = packed.order
        else:
            raise PluginError(
                f"next-token: expected a representation of the tag causal, anticausal or order, "
                f"found {packed.tag!r}; such a one must not provide representation:order"
            )
        stream = (row * (2 * n + 1) + rank).argsort()
        reader, wanted = stream[:-1], stream[1:]
        valid = (row[reader] == row[wanted]) & ~packed.special[wanted]
        reader, wanted = reader[valid], wanted[valid]
        offset = place[wanted] - place[reader]
        return Targets(reader, packed.original[IDS][wanted], extra={"offset": offset})

    def head(self) -> OffsetHead:
        def make() -> OffsetHead:
            return OffsetHead(self.backbone.vocabulary_head(tied=self.tied), self._width)

        return new_head(self.binding, self.name, make)

    @property
    def _width(self) -> int:
        return int(self.backbone.hidden_size)

    def features(self, head: Any, hidden: Hidden, targets: Targets) -> Tensor:
        device = hidden.states.device
        states = hidden.states[targets.index.to(device)]
        projected: Tensor = head.project(states, targets.extra["offset"].to(device))
        return projected


class SpanBoundary(VocabularyOutput):
    """The tokens of each selected span from the two states beside it (SpanBERT, §3.2).

    A span is a run of neighbouring selected positions within a row; a run at a row's very end, beside
    which there is no state, has no target.
    """

    name = "span-boundary"

    def targets(self, packed: Packed) -> Targets:
        chosen, row = packed.selected, packed.row_of
        index = chosen.nonzero().squeeze(1)
        new = torch.ones(len(index), dtype=torch.bool)
        new[1:] = (index[1:] != index[:-1] + 1) | (row[index[1:]] != row[index[:-1]])
        run = new.cumsum(0) - 1
        left = index[new] - 1
        right = index[torch.cat([new[1:], new.new_ones(min(1, len(index)))])] + 1
        left, right, owner = left[run], right[run], row[index]
        inside = (left >= packed.offsets[owner]) & (right < packed.offsets[owner + 1])
        index, left, right = index[inside], left[inside], right[inside]
        return Targets(
            index=torch.stack([left, right], -1),
            value=packed.original[IDS][index],
            extra={"place": index - left - 1},
        )

    def head(self) -> BoundaryHead:
        def make() -> BoundaryHead:
            vocabulary = self.backbone.vocabulary_head(tied=self.tied)
            return BoundaryHead(vocabulary, int(self.backbone.hidden_size), LONGEST_SPAN)

        return new_head(self.binding, self.name, make)

    def features(self, head: Any, hidden: Hidden, targets: Targets) -> Tensor:
        device = hidden.states.device
        states = hidden.states[targets.index.to(device)]
        projected: Tensor = head.project(states, targets.extra["place"].to(device))
        return projected


class OverVocabulary(nn.Module):
    """Base of heads that prepare a state in their own way and then use a vocabulary head."""

    def __init__(self, vocabulary: Any) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    @property
    def decoder_weight(self) -> Tensor:
        """[V, E]."""
        weight: Tensor = self.vocabulary.decoder_weight
        return weight

    @property
    def bias(self) -> Tensor:
        """[V]."""
        bias: Tensor = self.vocabulary.bias
        return bias


class OffsetHead(OverVocabulary):
    """Adds where the wanted position lies, seen from the reading one, to the reading state."""

    def __init__(self, vocabulary: Any, hidden: int) -> None:
        super().__init__(vocabulary)
        self.place = nn.Linear(2 * _WAVES, hidden, bias=False)
        # Zero, so that a pretrained vocabulary head begins with the states that it knows.
        nn.init.zeros_(self.place.weight)

    def project(self, states: Tensor, offset: Tensor) -> Tensor:
        """[M, H] and [M] → [M, E]."""
        projected: Tensor = self.vocabulary.project(states + self.place(waves(offset, states)))
        return projected


class BoundaryHead(OverVocabulary):
    """SpanBERT's: the states on both sides of a span, and which of its positions is meant."""

    def __init__(self, vocabulary: Any, hidden: int, longest: int) -> None:
        super().__init__(vocabulary)
        self.place = nn.Embedding(longest, hidden)
        self.dense, self.norm = nn.Linear(3 * hidden, hidden), nn.LayerNorm(hidden)

    def project(self, states: Tensor, place: Tensor) -> Tensor:
        """[M, 2, H] and [M] → [M, E]; places over the longest known one count as that."""
        known = self.place(place.clamp(max=self.place.num_embeddings - 1))
        joined = torch.cat([states.flatten(1), known], -1)
        mixed = self.norm(nn.functional.gelu(self.dense(joined)))
        projected: Tensor = self.vocabulary.project(mixed)
        return projected


def waves(offset: Tensor, like: Tensor) -> Tensor:
    """[M] integers → [M, 2 · 16] sines and cosines, wave lengths from 2π to 10,000 · 2π."""
    steps = torch.arange(_WAVES, device=like.device, dtype=like.dtype) / _WAVES
    angles = offset.to(like)[:, None] * torch.exp(-math.log(_LONGEST_WAVE) * steps)
    return torch.cat([angles.sin(), angles.cos()], -1)
