"""Images as rows: one position that stands for the whole image, then its patches from left to right and downwards.

S pixels a side of an image, P pixels of a patch, G patches a side, T = 1 + G² positions of a row, B rows. A pixel is a
number from 0 (background) to 1. Two numbers below 0 mark places without a pixel: `MASKED` in every pixel of a hidden
patch, `WHOLE` in those of the first position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from aang_core.batch.rows import Origin, Row
from aang_core.errors import TaskError

IMAGE = "image"
"""The column that holds images."""

PATCHES = "patches"
"""The encoder's input: [T, P]."""

MASKED, WHOLE = -1.0, -2.0
_SHADES = "·░▒▓█"
_HIDDEN = "╳"
_SHOWN_FAULTS = 5


@attrs.frozen(kw_only=True)
class Format:
    """What images must look like.

    :param side: S. :param patch: pixels a side of a patch. :param white: the number of the brightest pixel in the data.
    """

    side: int = 8
    patch: int = 2
    white: float = 16.0

    @property
    def grid(self) -> int:
        """G."""
        return self.side // self.patch

    @property
    def pixels(self) -> int:
        """P."""
        return self.patch**2

    @property
    def positions(self) -> int:
        """T."""
        return 1 + self.grid**2

    def patches_of(self, images: Tensor) -> Tensor:
        """[B, S, S] → [B, G², P]."""
        grid, patch = self.grid, self.patch
        cut = images.reshape(-1, grid, patch, grid, patch).transpose(2, 3)
        return cut.reshape(-1, grid**2, patch**2)

    def images_of(self, patches: Tensor) -> Tensor:
        """[B, G², P] → [B, S, S]; the inverse of `patches_of`."""
        grid, patch = self.grid, self.patch
        cut = patches.reshape(-1, grid, grid, patch, patch).transpose(2, 3)
        return cut.reshape(-1, self.side, self.side)


def image_rows(
    form: Format, examples: Sequence[Mapping[str, Any]], origins: Sequence[Origin]
) -> list[Row]:
    """Examples with the column `IMAGE` (and perhaps ``label``) as rows.

    :raises TaskError: for images that do not have the format; names the first five.
    """
    numbers = _numbers(form, examples)
    pixels = torch.tensor(numbers).reshape(-1, form.side, form.side) / form.white
    whole = torch.full((1, form.pixels), WHOLE)
    special = torch.arange(form.positions) == 0
    return [
        Row(
            inputs={PATCHES: torch.cat([whole, patches])},
            special=special,
            origin=origin,
            label=example.get("label"),
        )
        for patches, example, origin in zip(form.patches_of(pixels), examples, origins, strict=True)
    ]


def _numbers(form: Format, examples: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Each image's S² numbers."""
    found, faults = [], []
    for place, example in enumerate(examples, 1):
        try:
            numbers = _flat(example[IMAGE])
        except (TypeError, ValueError):
            faults.append(f"image {place} holds {str(example[IMAGE])[:40]!r}")
            continue
        if len(numbers) != form.side**2:
            faults.append(f"image {place} has {len(numbers)} numbers")
        elif not all(0 <= number <= form.white for number in numbers):
            faults.append(f"image {place} has numbers from {min(numbers):g} to {max(numbers):g}")
        found.append(numbers)
    if faults:
        more = f"; and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
        raise TaskError(
            f"expected images of {form.side}×{form.side} = {form.side**2} numbers from 0 (background) to "
            f"{form.white:g}, row by row, found others: {'; '.join(faults[:_SHOWN_FAULTS])}{more}. "
            "Scale them to this size and range"
        )
    return found


def _flat(value: Any) -> list[float]:
    """Numbers in a text, with blanks or commas between them, or in a list, or in a list of lists.

    :raises ValueError, TypeError: where there is something else.
    """
    if isinstance(value, str):
        return [float(number) for number in value.replace(",", " ").split()]
    if isinstance(value, Sequence):
        return [number for part in value for number in _flat(part)]
    return [float(value)]


def shaded(numbers: Sequence[float]) -> str:
    """A character a pixel."""
    return "".join(
        _HIDDEN if number < 0 else _SHADES[min(int(number * len(_SHADES)), len(_SHADES) - 1)]
        for number in numbers
    )


def pieces(form: Format, patches: Tensor) -> list[str]:
    """[T, P] → T words: the lines of each patch with a stroke between them."""
    lines = form.patch
    return [
        "[image]"
        if patch[0] == WHOLE
        else "/".join(shaded(patch[i * lines : (i + 1) * lines]) for i in range(lines))
        for patch in patches.tolist()
    ]


def picture(form: Format, patches: Tensor) -> list[str]:
    """[T, P] → S lines of two characters a pixel; none where the row is no whole image any more."""
    if len(patches) != form.positions:
        return []
    (image,) = form.images_of(patches[1:][None])
    return ["".join(each * 2 for each in shaded(line)) for line in image.tolist()]
