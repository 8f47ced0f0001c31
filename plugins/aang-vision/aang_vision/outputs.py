"""Stage 4: ``patch-denoise`` restores selected patches, ``rotation`` predicts how far an image was turned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.parts import PositionHead, backbone_of, new_head
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import SINGLE, Hidden, Packed, Targets
from aang_vision.images import PATCHES
from aang_vision.transforms import format_of


class PatchOutput:
    """What the two share: single images, losses that stand alone, and a small head."""

    layout = SINGLE
    min_rows = row_multiple = 1
    pointwise = True
    name = ""
    outputs = 1

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.width = int(backbone_of(binding, self.name).hidden_size)

    def head(self) -> nn.Module:
        """A new head, [M, H] → [M, outputs], in the same initial state at every call."""
        return new_head(self.binding, self.name, lambda: PositionHead(self.width, self.outputs))

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
