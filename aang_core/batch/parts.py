"""Parts for primitives and encoders of any domain: questions to an encoder, heads, devices, and a source that draws
examples.

B batch, M states, H hidden size, T positions.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from aang_core.batch.protocols import Backbone, Binding
from aang_core.batch.rows import Layout, Origin, Row
from aang_core.errors import ModelError, PluginError
from aang_core.randomness import seeded

Examples = Sequence[Mapping[str, Any]]
_M = TypeVar("_M", bound=nn.Module)
_CHUNK = 512
_KEPT = 50_000  # rows kept after their first use; a bound on memory for very large sources


def backbone_of(binding: Binding, primitive: str, *offers: str) -> Any:
    """The encoder, which must have every attribute in `offers`, and not as None.

    :raises ModelError: where it does not.
    """
    missing = [what for what in offers if getattr(binding.backbone, what, None) is None]
    if binding.backbone is None or missing:
        name = getattr(binding.backbone, "name", "no encoder")
        raise ModelError(
            f"{primitive}: expected an encoder that has {', '.join(missing) or 'a body'}, found "
            f"{name!r} without; use another encoder, or a space without {primitive}"
        )
    return binding.backbone


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


def dtype_named(name: str) -> torch.dtype:
    """A floating-point type as torch names it.

    :raises ModelError: where there is none of this name.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"dtype {name!r} is no floating-point type of torch; use 'float32'")
    return found


def device_named(name: str) -> torch.device:
    """``auto`` (cuda where there is one), or a device as torch names it.

    :raises ModelError: where there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as cause:  # AssertionError: torch built without CUDA
        raise ModelError(f"no device {name!r} here; use auto, cpu or cuda ({cause})") from cause


class ExampleSource(ABC):
    """Base of data sources that number their examples: it draws, and keeps the rows made so far.

    An example becomes a row when it is first drawn, so that binding a large source costs nothing but reading it.
    """

    def __init__(self, name: str, backbone: Backbone | None, provides: frozenset[str]) -> None:
        self.name, self.backbone, self.provides = name, backbone, provides
        self._made: dict[int, Row] = {}

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are."""

    @abstractmethod
    def _examples(self, numbers: Sequence[int]) -> tuple[Examples, list[Origin]]:
        """The examples with these numbers, as columns, and where they stand."""

    def _pool(self, layout: Layout) -> int:
        """Rows with numbers below this one may be drawn in this layout."""
        if layout.relation:
            raise PluginError(
                f"{self.name}: expected a layout without a question, or one of its own, found the "
                f"relation {layout.relation!r}; declare what the output requires"
            )
        return len(self)

    def rows(self) -> Iterator[Row]:
        """Every row once, in order."""
        for start in range(0, len(self), _CHUNK):
            yield from self._rows(range(start, min(start + _CHUNK, len(self))))

    def examples(self) -> Iterator[tuple[Origin, Mapping[str, Any]]]:
        """Every example once, with its row's origin."""
        for start in range(0, len(self), _CHUNK):
            found, origins = self._examples(range(start, min(start + _CHUNK, len(self))))
            yield from zip(origins, found, strict=True)

    def draw(self, layout: Layout, count: int, generator: Generator) -> list[Row]:
        """Rows drawn uniformly; distinct within one call while there are enough of them.

        :raises PluginError: for layouts other than ``single`` and ``two-views``.
        """
        if layout.kind not in ("single", "two-views"):
            raise PluginError(
                f"{self.name}: expected the layout single or two-views, found {layout.kind!r}; "
                "declare what the output requires"
            )
        views = 2 if layout.kind == "two-views" else 1
        numbers = distinct(self._pool(layout), -(-count // views), generator)
        rows = self._rows(numbers)
        return [row for row in rows for _ in range(views)][:count]

    def _rows(self, numbers: Sequence[int]) -> list[Row]:
        new = [n for n in dict.fromkeys(numbers) if n not in self._made]
        made = dict(zip(new, self._make(new), strict=True)) if new else {}
        rows = [made[n] if n in made else self._made[n] for n in numbers]
        if len(self._made) + len(made) <= _KEPT:
            self._made.update(made)
        return rows

    def _make(self, numbers: Sequence[int]) -> list[Row]:
        return self._encoder().rows(*self._examples(numbers))

    def _encoder(self) -> Backbone:
        if self.backbone is None:
            raise ModelError(f"{self.name}: expected an encoder to make rows for, found none")
        return self.backbone


def distinct(size: int, count: int, generator: Generator) -> list[int]:
    """`count` numbers below `size`, uniform; each at most once while `size` allows, then again."""
    if 4 * count >= size:
        rounds = [torch.randperm(size, generator=generator) for _ in range(-(-count // size))]
        return torch.cat(rounds)[:count].tolist() if rounds else []
    found: dict[int, None] = {}
    while len(found) < count:  # a permutation of a large corpus would cost more than the draw
        found |= dict.fromkeys(torch.randint(size, (count,), generator=generator).tolist())
    return list(found)[:count]
