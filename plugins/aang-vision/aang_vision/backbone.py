"""The backbone of images: a `PatchEncoder` with random weights, as the engine asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aang_core.batch.parts import device_named, dtype_named
from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Hidden, Origin, Row
from aang_core.batch.stream import FusedBatch
from aang_core.errors import ModelError, did_you_mean
from aang_core.randomness import seeded
from aang_vision import images
from aang_vision.encoder import ImageHead, PatchEncoder, Shape, encode
from aang_vision.exported import ExportedImages, export_model

if TYPE_CHECKING:
    from aang_core.data.task import Task

SHAPES: Mapping[str, Shape] = {
    "patches:tiny": Shape(),
    "patches:small": Shape(hidden=64, layers=4, heads=4),
}
_UNUSABLE = ("checkpointing", "frozen_layers", "lora_rank")


def load(model: str, settings: BackboneSettings) -> PatchBackbone:
    """An encoder by name, its weights drawn from ``settings.seed``.

    :raises ModelError: for other names, and for settings that an encoder without pretraining has no use for.
    """
    if model not in SHAPES:
        raise ModelError(f"there is no encoder {model!r}{did_you_mean(model, SHAPES)}")
    shape = SHAPES[model]
    faults = [name for name in _UNUSABLE if getattr(settings, name)]
    if faults:
        raise ModelError(
            f"model {model!r} is small and begins from random weights, all of which train; leave at 0: "
            + ", ".join(faults)
        )
    if settings.max_length < shape.form.positions:
        raise ModelError(
            f"model {model!r} needs {shape.form.positions} positions an image, found training.max_length = "
            f"{settings.max_length}; give it as many"
        )
    return PatchBackbone(model, shape, settings)


class PatchBackbone:
    """A `protocols.Backbone` of images, and what the primitives of images ask beside.

    :ivar shape: its size; ``shape.form`` says what images look like.
    """

    packed = True
    capabilities = frozenset({"backbone:row-attention", "backbone:dropout", "backbone:patches"})

    def __init__(self, name: str, shape: Shape, settings: BackboneSettings) -> None:
        self.name, self.shape = name, shape
        self.device, self.dtype = device_named(settings.device), dtype_named(settings.dtype)
        self.seed = settings.seed
        self.hidden_size = self.embedding_size = shape.hidden
        self.max_length = shape.form.positions
        with seeded(self.seed, "patch-encoder", device=torch.device("cpu")):
            self.body: nn.Module = PatchEncoder(shape).to(self.device, self.dtype)
        self._heads: dict[int, ImageHead] = {}

    def rows(self, examples: Sequence[Mapping[str, Any]], origins: Sequence[Origin]) -> list[Row]:
        """Examples with the column ``image`` as rows; see `images.image_rows`."""
        return images.image_rows(self.shape.form, examples, origins)

    def pieces(self, patches: Tensor) -> list[str]:
        """[T, P] patches as T words."""
        return images.pieces(self.shape.form, patches)

    def picture(self, patches: Tensor) -> list[str]:
        """[T, P] patches as the lines of a picture."""
        return images.picture(self.shape.form, patches)

    def encode(self, batch: FusedBatch) -> Hidden:
        """One pass over the packed stream."""
        return encode(self.body, batch)

    def end_task_head(self, task: Task) -> ImageHead:
        """The classifier, in the same initial state at every call.

        :raises ModelError: for tasks with an answer a position.
        """
        if task.kind == "token":
            raise ModelError(
                f"model {self.name!r} gives one answer an image; the task {task.name!r} asks for one a position"
            )
        if task.num_outputs not in self._heads:
            with seeded(self.seed, "image-head", device=torch.device("cpu")):
                head = ImageHead(self.shape, task.num_outputs)
            self._heads[task.num_outputs] = head.to(self.device, self.dtype)
        return deepcopy(self._heads[task.num_outputs])

    def export(self, directory: Path, head: nn.Module, task: Task) -> None:
        """Write weights, configuration and model card; see `exported.export_model`."""
        export_model(directory, self.shape, self.body, head, task)

    def exported_logits(self, directory: Path, examples: Sequence[Mapping[str, Any]]) -> Tensor:
        """[len(examples), C] from the files alone."""
        return torch.stack(ExportedImages(directory, self.device).logits(examples))
