"""Evaluation: predictions of the end-task in length order, no gradients or dropout; their scores, and the best so far.

`DevJudge` scores dev between steps and keeps the best parameters so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aang_core.batch.packing import plain_batch
from aang_core.batch.protocols import Backbone
from aang_core.batch.rows import Row
from aang_core.data.metrics import score
from aang_core.data.task import Task
from aang_core.errors import ConfigError
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


def last_layer(session: Session) -> nn.Linear:
    """The linear layer that gives the end-task's logits.

    :raises ConfigError: if a probe cannot replace it.
    """
    task, wanted = session.task, session.task.num_outputs
    if task.kind != "class":
        raise ConfigError(
            f"a probe needs classes, one a text; the task {task.name!r} is of the kind {task.kind!r}: set heads.start "
            "and heads.finish to their defaults"
        )
    layers = [m for m in session.end_task_head.modules() if isinstance(m, nn.Linear)]
    if not layers or layers[-1].out_features != wanted:
        raise ConfigError(
            f"a probe replaces a last linear layer with {wanted} outputs; the end-task's head of "
            f"{session.model.backbone.name} has none: set heads.start and heads.finish to their defaults"
        )
    return layers[-1]


def features_of(session: Session, layer: nn.Linear, rows: Sequence[Row]) -> Tensor:
    """[n, D] in fp64 on the CPU: the input of the last layer for each row, dropout off."""
    backbone, head, device = session.model.backbone, session.end_task_head, session.device
    given: list[Tensor] = []
    found: list[Tensor | None] = [None] * len(rows)
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    try:
        with evaluating(backbone.body), evaluating(head), torch.no_grad():
            for batch in by_length([len(row) for row in rows], batch_tokens(device)):
                hidden = backbone.encode(plain_batch([rows[i] for i in batch]).to(device))
                head(hidden, torch.arange(len(batch), device=device))
                for i, feature in zip(batch, given.pop().double().cpu(), strict=True):
                    found[i] = feature
    finally:
        hook.remove()
    return torch.stack([feature for feature in found if feature is not None])


class DevJudge:
    """Scores a session on dev, and keeps the best parameters so far.

    :param best: the file that they are kept in.
    :ivar features: where a probe will end the run, what the head's last layer reads of the stopping rows with the best
        parameters; None until they are judged, as after a resume.
    """

    def __init__(self, session: Session, best: Path) -> None:
        self.session, self.best = session, best
        self.features: Tensor | None = None

    def judged(self, progress: Progress, slow: SlowCopy | None = None) -> Progress:
        """`progress` after one more evaluation. The main process writes the best parameters so far.

        :param slow: the running mean of the parameters, judged beside them or in their place
            (``training.mean_evaluation``); the better of the two counts.
        """
        found, metric = [], self.session.task.metric
        judge = self.session.config.training.mean_evaluation if slow is not None else "off"
        if judge != "only":
            found.append((*self._scores(), False))
        if slow is not None and judge != "off":
            with slow.in_place():
                found.append((*self._scores(), True))
        metrics, features, mean = max(found, key=lambda each: _finite(each[0][metric]))
        progress = self._kept(progress.evaluated(metrics, metric, mean), slow if mean else None)
        if progress.is_best:
            self.features = features
        return progress

    def probed(self, progress: Progress) -> Progress:
        """The same for a new last layer on the best parameters, which reads what the former one read.

        With ``heads.finish = "always"`` it counts as the best whatever its score is.
        """
        if self.features is None:
            self.features = self._features()
        metrics, metric = self._answered(self.features), self.session.task.metric
        encoder = (progress.best_is_mean, progress.best_step)
        if self.session.config.heads.finish == "always":
            progress = attrs.evolve(progress, best_score=None)
        return self._kept(progress.evaluated(metrics, metric, *encoder))

    def _kept(self, progress: Progress, mean: SlowCopy | None = None) -> Progress:
        """`progress` itself; the parameters, or their `mean`, are written if the last evaluation is the best so far."""
        session = self.session
        if progress.is_best and session.processes.is_main:
            with mean.in_place() if mean is not None else nullcontext():
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

    def _scores(self) -> tuple[dict[str, float], Tensor | None]:
        """Dev's metrics, and what `features` says."""
        session = self.session
        if session.config.heads.finish != "none":
            features = self._features()
            return self._answered(features), features
        with session.engine.autocast():
            logits = session.predict(session.stopping)
        return scores(session.task, logits, session.stopping), None

    def _features(self) -> Tensor:
        """[n, D], as the last layer reads them."""
        layer = last_layer(self.session)
        with self.session.engine.autocast():
            return features_of(self.session, layer, self.session.stopping).to(layer.weight)

    @torch.no_grad()
    def _answered(self, features: Tensor) -> dict[str, float]:
        """Dev's metrics from [n, D]."""
        session = self.session
        with session.engine.autocast():
            logits = last_layer(session)(features).float().cpu()
        return scores(session.task, list(logits), session.stopping)


def _finite(score: float) -> float:
    """A score for comparisons: not finite is worst."""
    return score if math.isfinite(score) else -math.inf
