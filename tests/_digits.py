"""A small task of real images, its encoder in float64, and bindings for the primitives of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from aang_text.data.sources import TaskTexts
from aang_vision.backbone import PatchBackbone, load
from aang_vision.sources import digits

from aang_core.batch.protocols import BackboneSettings, Binding
from aang_core.batch.rows import Origin, Row
from aang_core.data.task import Task
from aang_core.registry.records import Primitive


def small_task(train: int = 30, dev: int = 12, test: int = 12) -> Task:
    """The first images of each split of the task ``digits``."""
    task = digits()
    sizes = {"train": train, "dev": dev, "test": test}
    splits = {name: task.splits[name].select(range(size)) for name, size in sizes.items()}
    others = task.splits["train"].select(range(train, 2 * train)).remove_columns("label")
    return attrs.evolve(task, splits=splits, unlabelled=others)


def backbone(dtype: str = "float64", seed: int = 0) -> PatchBackbone:
    made = load("patches:tiny", BackboneSettings(dtype=dtype, seed=seed, device="cpu"))
    made.body.eval()
    return made


def rows_of(encoder: PatchBackbone, task: Task, split: str = "train") -> list[Row]:
    examples = list(task.splits[split])
    return encoder.rows(examples, [Origin(split, i, 0) for i in range(len(examples))])


def binding(record: Primitive | None, folder: Path, **options: Any) -> Binding:
    """What the contract kit checks a primitive of images on."""
    task, encoder = small_task(), backbone()
    extra = folder / "extra.npy"
    np.save(extra, np.array(task.unlabelled["image"], dtype=np.uint8))
    task = attrs.evolve(task, external={"images": extra})
    own = {} if record is None else dict(record.options)
    made = Binding(task=task, backbone=encoder, options={**own, **options}, cache=folder)
    return attrs.evolve(made, source=TaskTexts(made))


def packed_images(count: int = 6) -> tuple[Any, torch.Tensor]:
    """Some packed rows, and their images [B, 8, 8] with pixels from 0 to 1, read from the data itself."""
    from aang_core.batch.packing import pack

    task = small_task()
    images = torch.tensor(task.splits["train"]["image"][:count]).double().view(-1, 8, 8) / 16
    return pack(rows_of(backbone(), task)[:count]), images
