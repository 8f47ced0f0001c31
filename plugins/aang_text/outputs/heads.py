"""The heads of the text outputs, and how a head begins: from the run's seed, beside the encoder."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from aang_core.batch.protocols import Binding
from aang_core.randomness import seeded
from aang_text.offers import backbone_of

_M = TypeVar("_M", bound=nn.Module)
_WAVES = 16
_LONGEST_WAVE = 10_000.0


def new_head(binding: Binding, output: str, make: Callable[[], _M]) -> _M:
    """A module with initial values from the run's seed, of the encoder's dtype and on its device.

    Layers draw their initial values from torch's global generator, which is put back afterwards.
    """
    parameter = next(backbone_of(binding, output).body.parameters())
    stream = zlib.crc32(output.encode())
    with seeded(binding.seed, "head", stream, device=torch.device("cpu")):
        head = make()
    return head.to(parameter.device, parameter.dtype)


class PositionHead(nn.Module):
    """Dense, GELU, linear: [M, H] → [M, outputs] (ELECTRA's discriminator head)."""

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        self.dense, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)

    def forward(self, states: Tensor) -> Tensor:
        logits: Tensor = self.out(nn.functional.gelu(self.dense(states)))
        return logits


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
