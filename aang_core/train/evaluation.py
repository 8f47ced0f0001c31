"""Predictions of the end-task: in length order, without gradients, dropout off."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aang_core.batch.packing import plain_batch
from aang_core.batch.protocols import Backbone
from aang_core.batch.rows import Row
from aang_core.data.metrics import score
from aang_core.data.task import Task
from aang_core.randomness import evaluating

_BATCH_TOKENS = 4096


def predict(backbone: Backbone, head: nn.Module, task: Task, rows: Sequence[Row]) -> list[Tensor]:
    """Each row's logits, on the CPU in fp32: [C], or [T, C] for token tasks."""
    device = next(backbone.body.parameters()).device
    found: list[Tensor | None] = [None] * len(rows)
    with evaluating(backbone.body), evaluating(head), torch.inference_mode():
        for batch in by_length([len(row) for row in rows]):
            hidden = backbone.encode(plain_batch([rows[i] for i in batch]).to(device))
            count = len(batch) if task.kind != "token" else len(hidden.states)
            logits = head(hidden, torch.arange(count, device=device)).float().cpu()
            sizes = [1] * len(batch) if task.kind != "token" else [len(rows[i]) for i in batch]
            for i, part in zip(batch, logits.split(sizes), strict=True):
                found[i] = part if task.kind == "token" else part[0]
    return [logits for logits in found if logits is not None]


def by_length(lengths: Sequence[int], tokens: int = _BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices in length order, in batches of at most `tokens` positions (one row at the least)."""
    batch: list[int] = []
    filled = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and filled + lengths[i] > tokens:
            yield batch
            batch, filled = [], 0
        batch.append(i)
        filled += lengths[i]
    if batch:
        yield batch


def scores(task: Task, logits: Sequence[Tensor], rows: Sequence[Row]) -> dict[str, float]:
    """Every metric that the task's kind has, as fractions; NaN where a logit is not finite, for it ranks nothing."""
    classes = len(task.label_names)
    if not all(bool(each.isfinite().all()) for each in logits):
        usable = scores(task, [each.nan_to_num() for each in logits], rows)
        return dict.fromkeys(usable, math.nan)
    if task.kind == "token":
        labels = torch.cat([torch.as_tensor(row.label) for row in rows])
        return score(task.kind, torch.cat(list(logits)).numpy(), labels.numpy(), classes)
    stacked: NDArray[np.float32] = torch.stack(list(logits)).numpy()
    return score(task.kind, stacked, np.asarray([row.label for row in rows]), classes)
