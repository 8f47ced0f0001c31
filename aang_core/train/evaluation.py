"""Evaluation: predictions of the end-task in length order, no gradients or dropout; their scores, and the best so far.

`DevJudge` scores dev between steps and keeps the best parameters so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aang_core.batch.packing import plain_batch
from aang_core.batch.protocols import Backbone
from aang_core.batch.rows import Row
from aang_core.data.metrics import score
from aang_core.data.task import Task
from aang_core.files import save_tensors
from aang_core.method.slow_copy import SlowCopy
from aang_core.randomness import evaluating
from aang_core.train.callbacks import Progress

if TYPE_CHECKING:
    from aang_core.train.session import Session

_BATCH_TOKENS = 4096
_CPU_BATCH_TOKENS = 1024
"""On a processor, whose caches hold so many positions' states: 7 % less CPU time than with `_BATCH_TOKENS`."""


def predict(backbone: Backbone, head: nn.Module, task: Task, rows: Sequence[Row]) -> list[Tensor]:
    """Each row's logits, on the CPU in fp32: [C], or [T, C] for token tasks."""
    device = next(backbone.body.parameters()).device
    found: list[Tensor | None] = [None] * len(rows)
    with evaluating(backbone.body), evaluating(head), torch.inference_mode():
        for batch in by_length([len(row) for row in rows], batch_tokens(device)):
            hidden = backbone.encode(plain_batch([rows[i] for i in batch]).to(device))
            count = len(batch) if task.kind != "token" else len(hidden.states)
            logits = head(hidden, torch.arange(count, device=device)).float().cpu()
            sizes = [1] * len(batch) if task.kind != "token" else [len(rows[i]) for i in batch]
            for i, part in zip(batch, logits.split(sizes), strict=True):
                found[i] = part if task.kind == "token" else part[0]
    return [logits for logits in found if logits is not None]


def batch_tokens(device: torch.device) -> int:
    """How many positions a batch without gradients has on such a device."""
    return _CPU_BATCH_TOKENS if device.type == "cpu" else _BATCH_TOKENS


def by_length(lengths: Sequence[int], tokens: int = _BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices in length order, in batches of at most `tokens` positions (at least one row)."""
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
    """Every metric of the task's kind, as fractions; NaN if a logit is not finite."""
    classes = len(task.label_names)
    if not all(bool(each.isfinite().all()) for each in logits):
        usable = scores(task, [each.nan_to_num() for each in logits], rows)
        return dict.fromkeys(usable, math.nan)
    if task.kind == "token":
        labels = torch.cat([torch.as_tensor(row.label) for row in rows])
        return score(task.kind, torch.cat(list(logits)).numpy(), labels.numpy(), classes)
    stacked: NDArray[np.float32] = torch.stack(list(logits)).numpy()
    return score(task.kind, stacked, np.asarray([row.label for row in rows]), classes)


class DevJudge:
    """Scores a session on dev, and keeps the best parameters so far.

    :param best: the file that they are kept in.
    """

    def __init__(self, session: Session, best: Path) -> None:
        self.session, self.best = session, best

    def judged(self, progress: Progress, slow: SlowCopy | None = None) -> Progress:
        """`progress` after one more evaluation. The main process writes the best parameters so far.

        :param slow: the running mean of the parameters, judged beside them or in their place
            (``training.mean_evaluation``); the better of the two counts.
        """
        session, found = self.session, []
        judge = session.config.training.mean_evaluation if slow is not None else "off"
        if judge != "only":
            found.append((self._scores(), False))
        if slow is not None and judge != "off":
            with slow.in_place():
                found.append((self._scores(), True))
        metric = session.task.metric
        metrics, mean = max(found, key=lambda each: _finite(each[0][metric]))
        progress = progress.evaluated(metrics, metric, mean)
        if progress.waited == 0 and session.processes.is_main:
            with slow.in_place() if mean and slow is not None else nullcontext():
                save_tensors(self.best, session.trained_tensors)
        return progress

    def load_best(self) -> None:
        """Put the best parameters back, on every process."""
        self.session.processes.barrier()  # for the one that writes
        self.session.load(self.best)

    def never_finite(self, evaluations: int) -> str:
        """The message if none of so many evaluations gave a finite score."""
        session = self.session
        return (
            f"seed {session.seed}: dev {session.task.metric} was not finite (NaN or infinite) in any of {evaluations} "
            f"evaluations, so there is no best checkpoint in {self.best.parents[1]}; expected a finite score in at "
            f"least one. The training diverged: lower training.lr (now {session.config.training.lr:g}), and begin "
            "again with another --out"
        )

    def _scores(self) -> dict[str, float]:
        session = self.session
        with session.engine.autocast():
            logits = session.predict(session.stopping)
        return scores(session.task, logits, session.stopping)


def _finite(score: float) -> float:
    """A score for comparisons: not finite is worst."""
    return score if math.isfinite(score) else -math.inf
