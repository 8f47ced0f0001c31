"""Stage 2: how images are corrupted. In: Packed. Out: a new Packed, selected and changed, or with its content moved.

B rows, N packed positions, P pixels of a patch, S pixels a side of an image.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Generator, Tensor

from aang_core.batch.positions import checked_rate, select
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Packed
from aang_core.errors import ConfigError, ModelError
from aang_vision.images import MASKED, PATCHES, Format


class MaskPatches:
    """Hides patches: every pixel of a selected one says that nothing is known (He et al., 2022)."""

    name = "mask-patches"

    def __init__(self, binding: Binding) -> None:
        self.rate = checked_rate(binding.options, self.name)

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        """Select ``rate`` of each image's patches and hide them."""
        selected = select(packed, self.rate, False, generator)
        hidden = packed.inputs[PATCHES].masked_fill(selected[:, None], MASKED)
        return attrs.evolve(packed, inputs={**packed.inputs, PATCHES: hidden}, selected=selected)


class NoisePatches:
    """Gaussian noise on the pixels of selected patches, which stay between 0 and 1 (Vincent et al., 2008)."""

    name = "noise-patches"

    def __init__(self, binding: Binding) -> None:
        self.rate = checked_rate(binding.options, self.name)
        self.std = _positive(binding, self.name, "std")

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        """Select ``rate`` of each image's patches and blur them."""
        selected = select(packed, self.rate, False, generator)
        patches = packed.inputs[PATCHES]
        noise = torch.randn(patches.shape, generator=generator) * self.std
        noisy = (patches + noise.to(patches)).clamp(0.0, 1.0)
        shown = torch.where(selected[:, None], noisy, patches)
        return attrs.evolve(packed, inputs={**packed.inputs, PATCHES: shown}, selected=selected)


class Shift:
    """Moves each image by up to ``pixels`` in both directions; background enters at the border."""

    name = "shift"

    def __init__(self, binding: Binding) -> None:
        self.form = format_of(binding, self.name)
        self.most = int(_positive(binding, self.name, "pixels"))
        if self.most >= self.form.side:
            raise ConfigError(
                f"[primitives.{self.name}] pixels: expected fewer than the image's {self.form.side}, "
                f"found {self.most}"
            )

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        """Each image has its own shift, uniform over all."""
        images = whole_images(packed, self.form)
        steps = torch.randint(0, 2 * self.most + 1, (len(images), 2), generator=generator)
        wide = torch.nn.functional.pad(images, (self.most,) * 4)
        down, right = (
            step[:, None] + torch.arange(self.form.side)[None] for step in steps.unbind(1)
        )
        row = torch.arange(len(images))[:, None, None]
        moved = wide[row, down[:, :, None], right[:, None, :]]
        return attrs.evolve(
            packed, inputs={**packed.inputs, PATCHES: laid(packed, self.form, moved)}
        )


class Rotate:
    """Turns each image by 0, 90, 180 or 270 degrees to the left, and notes which in `Packed.structure`.

    Gidaris et al., 2018. Patches move with the image, and their marks with them.
    """

    name = "rotate"

    def __init__(self, binding: Binding) -> None:
        self.form = format_of(binding, self.name)
        grid, count = self.form.grid, self.form.positions
        places = torch.arange(1, count).view(grid, grid)
        turned = [places.rot90(turns, (0, 1)).flatten() for turns in range(4)]
        # [4, T] the place that each position's patch comes from; the first position stays
        self.sources = torch.stack([torch.cat([torch.zeros(1).long(), t]) for t in turned])

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        """Each image has its own turn, uniform over the four."""
        images = whole_images(packed, self.form)
        turns = torch.randint(4, (len(images),), generator=generator)
        every = torch.stack([images.rot90(k, (1, 2)) for k in range(4)])
        moved = every[turns, torch.arange(len(images))]
        source = (packed.offsets[:-1, None] + self.sources[turns]).flatten()
        return attrs.evolve(
            packed,
            inputs={**packed.inputs, PATCHES: laid(packed, self.form, moved)},
            original={name: value[source] for name, value in packed.original.items()},
            marks={name: value[source] for name, value in packed.marks.items()},
            structure=turns,
        )


def whole_images(packed: Packed, form: Format) -> Tensor:
    """[B, S, S] the images of packed rows."""
    patches = packed.inputs[PATCHES].view(-1, form.positions, form.pixels)
    return form.images_of(patches[:, 1:].contiguous())


def laid(packed: Packed, form: Format, images: Tensor) -> Tensor:
    """[N, P] the packed patches with those of other images [B, S, S] in their place."""
    patches = packed.inputs[PATCHES].view(-1, form.positions, form.pixels)
    return torch.cat([patches[:, :1], form.patches_of(images)], 1).flatten(0, 1)


def format_of(binding: Binding, primitive: str) -> Format:
    """What the encoder's images look like.

    :raises ModelError: where it is no encoder of images.
    """
    form: Any = getattr(getattr(binding.backbone, "shape", None), "form", None)
    if not isinstance(form, Format):
        name = getattr(binding.backbone, "name", "no encoder")
        raise ModelError(f"{primitive}: expected an encoder of images, found {name!r}")
    return form


def _positive(binding: Binding, primitive: str, option: str) -> float:
    value = binding.options[option]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(
            f"[primitives.{primitive}] {option}: expected a number over 0, found {value!r}"
        )
    return float(value)
