"""Stage 4: ``patch-denoise``, what stood at a selected position, and ``rotation``, how far an image was turned."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.errors import ModelError
from aang_core.protocols import Binding
from aang_core.randomness import seeded
from aang_core.rows import SINGLE, Hidden, Packed, Targets
from aang_vision.images import PATCHES
from aang_vision.transforms import format_of


class Perceptron(nn.Module):
    """Dense, GELU, linear: [M, H] → [M, outputs]."""

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        self.dense, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)

    def forward(self, states: Tensor) -> Tensor:
        answers: Tensor = self.out(F.gelu(self.dense(states)))
        return answers


class PatchOutput:
    """What the two share: single images, losses that stand alone, and a small head."""

    layout = SINGLE
    min_rows = row_multiple = 1
    pointwise = True
    name = ""
    outputs = 1

    def __init__(self, binding: Binding) -> None:
        if binding.backbone is None:
            raise ModelError(f"{self.name}: expected an encoder of images, found none")
        self.backbone, self.seed = binding.backbone, binding.seed

    def head(self) -> nn.Module:
        """A new head, in the same initial state at every call."""
        weight = next(self.backbone.body.parameters())
        stream = zlib.crc32(self.name.encode())
        with seeded(self.seed, "head", stream, device=torch.device("cpu")):
            made = Perceptron(self.backbone.hidden_size, self.outputs)
        return made.to(weight.device, weight.dtype)

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is fitted."""
        return {}


class PatchDenoise(PatchOutput):
    """The original pixels of each selected patch (He et al., Masked Autoencoders, 2022, without its decoder)."""

    name = "patch-denoise"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.outputs = format_of(binding, self.name).pixels

    def targets(self, packed: Packed) -> Targets:
        """A target a selected position: its patch [P]."""
        index = packed.selected.nonzero().squeeze(1)
        return Targets(index=index, value=packed.original[PATCHES][index])

    def losses(self, head: Any, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] squared errors, their mean over the patch's pixels."""
        answers: Tensor = head(hidden.states[targets.index])
        return (answers - targets.value.to(answers)).square().mean(-1)


class Rotation(PatchOutput):
    """How far the image was turned, of four possible ways (Gidaris et al., 2018); images not turned are upright."""

    name = "rotation"
    names = ("upright", "90° to the left", "upside down", "90° to the right")
    outputs = len(names)

    def targets(self, packed: Packed) -> Targets:
        """A target a row."""
        rows = torch.arange(len(packed.lengths))
        turns = torch.zeros_like(rows) if packed.structure is None else packed.structure
        return Targets(index=rows, value=turns, level="row")

    def losses(self, head: Any, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] cross-entropies."""
        answers: Tensor = head(hidden.means(targets.index))
        return F.cross_entropy(answers, targets.value, reduction="none")
