"""``discriminator-bce`` and ``discriminator-ce``: the task discriminator of FastMTL (TD-MTDNN).

A shared encoder is trained on a sample of every task: one linear head a task with that task's own loss, and beside it a
discriminator ``Linear(H, tasks)`` on the same pooled states. An example's score is its probability of being the
target's. The public code takes a sigmoid for the softmax variant too; here it is a softmax.

B rows of a batch (all of one task), H hidden, K tasks (the target first, then the pools).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.packing import pack, plain_batch
from aang_core.batch.rows import Hidden, Row
from aang_core.data.task import Task
from aang_core.errors import ConfigError
from aang_core.method.end_task import end_task_losses, label_targets
from aang_core.randomness import generator, seeded
from aang_core.selection.protocols import SelectionContext, Window, pooled
from aang_core.train.optimizer import linear_warmup_decay

_CLIP = 1.0
_WEIGHT_DECAY = 0.01


def sigmoids(context: SelectionContext) -> Discriminator:
    """One sigmoid a task, each with the weight ``(N_all − N_t) / N_t`` on its positives."""
    return Discriminator(context, exclusive=False)


def softmax(context: SelectionContext) -> Discriminator:
    """One softmax over the tasks."""
    return Discriminator(context, exclusive=True)


class TaskHeads(nn.Module):
    """A linear head for each labelled task (None for texts without labels), and the discriminator."""

    def __init__(self, hidden_size: int, tasks: Sequence[Task | None]) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict(
            {
                str(k): nn.Linear(hidden_size, task.num_outputs)
                for k, task in enumerate(tasks)
                if task is not None
            }
        )
        self.discriminator = nn.Linear(hidden_size, len(tasks))


class Discriminator:
    """Trained on `SelectionContext.samples`; scores by the discriminator's first output.

    Options: ``epochs``, ``batch_rows``, ``lr`` (encoder), ``head_lr``, ``warmup`` (share of the steps) and
    ``pooling``. The learning rate falls linearly to 0.

    :raises ConfigError: where there is nothing to train on.
    """

    def __init__(self, context: SelectionContext, exclusive: bool) -> None:
        self.context, self.exclusive, self.pooling = context, exclusive, context.pooling()
        empty = [
            pool.name for pool, rows in zip(context.pools, context.samples, strict=True) if not rows
        ]
        if empty:
            raise ConfigError(
                f"a discriminator needs examples of every pool to train on, and there are none of "
                f"{', '.join(empty)}; raise --examples-per-task (a pool gives at most half of its rows)"
            )
        if context.options["epochs"] < 1 or context.options["batch_rows"] < 1:
            raise ConfigError("options epochs and batch_rows must be at least 1")
        self.tasks: list[Task | None] = [context.target, *(pool.task for pool in context.pools)]

    @cached_property
    def heads(self) -> TaskHeads:
        """Made when they are first asked for, since their size is the encoder's."""
        context = self.context
        with seeded(context.seed, "selection-heads", device=torch.device("cpu")):
            heads = TaskHeads(context.backbone.hidden_size, self.tasks)
        parameter = next(context.backbone.body.parameters())
        return heads.to(device=context.device, dtype=parameter.dtype)

    def prepare(self) -> dict[str, Tensor]:
        """Train; the state is that of the encoder and of the discriminator."""
        context = self.context
        rows = [
            context.examples.rows(context.backbone, context.target_sample),
            *(
                pool.rows(context.backbone, sample)
                for pool, sample in zip(context.pools, context.samples, strict=True)
            ),
        ]
        self._train(rows)
        return {name: p.detach() for name, p in self._parameters().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Encoder and heads as they were after training."""
        with torch.no_grad():
            for name, parameter in self._parameters().items():
                parameter.copy_(state[name])

    def _parameters(self) -> dict[str, nn.Parameter]:
        parts = {"body": self.context.backbone.body, "heads": self.heads}
        return {f"{k}.{n}": p for k, part in parts.items() for n, p in part.named_parameters()}

    def scores(self, window: Window) -> Tensor:
        """[B] float64 in [0, 1]."""
        context = self.context
        rows = window.pool.rows(context.backbone, window.numbers)
        logits = self._logits(context.vectors(rows, self.pooling))
        return (logits.softmax(1) if self.exclusive else logits.sigmoid())[:, 0]

    @torch.no_grad()
    def _logits(self, vectors: Tensor) -> Tensor:
        """[B, K] float64, so that probabilities near 1 stay apart."""
        linear = self.heads.discriminator
        weight, bias = linear.weight.cpu().double(), linear.bias.cpu().double()
        return vectors.double() @ weight.t() + bias

    def _train(self, rows: Sequence[Sequence[Row]]) -> None:
        """:param rows: those to train on, of the target and then of each pool."""
        context, options = self.context, self.context.options
        body = [p for p in context.backbone.body.parameters() if p.requires_grad]
        groups = [
            {"params": body, "base_lr": options["lr"]},
            {"params": list(self.heads.parameters()), "base_lr": options["head_lr"]},
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=options["lr"], weight_decay=_WEIGHT_DECAY, fused=True
        )
        positive = positive_weights([len(own) for own in rows]).to(context.device)
        batches = [
            batch
            for epoch in range(options["epochs"])
            for batch in epoch_batches(
                [len(own) for own in rows], options["batch_rows"], context.seed, epoch
            )
        ]
        context.backbone.body.train()
        for step, (task, numbers) in enumerate(batches):
            context.progress("training the discriminator", step, len(batches))
            factor = linear_warmup_decay(step, len(batches), options["warmup"])
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            with seeded(context.seed, "selection-dropout", step, device=context.device):
                loss = self._loss(task, [rows[task][i] for i in numbers], positive)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], _CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        context.backbone.body.eval()
        context.progress("training the discriminator", len(batches), len(batches))

    def _loss(self, task: int, rows: Sequence[Row], positive: Tensor) -> Tensor:
        """The task's own mean loss, where it has labels, plus the discriminator's."""
        context = self.context
        with context.autocast():
            hidden = context.backbone.encode(plain_batch(rows).to(context.device))
            states = pooled(hidden, self.pooling)
            logits = self.heads.discriminator(states).to(positive)
        truth = torch.full((len(rows),), task, device=context.device)
        if self.exclusive:
            loss = F.cross_entropy(logits, truth)
        else:
            each = F.one_hot(truth, len(self.tasks)).to(logits)
            loss = F.binary_cross_entropy_with_logits(logits, each, pos_weight=positive)
        labelled = self.tasks[task]
        if labelled is None:
            return loss
        head = self.heads.tasks[str(task)]
        return loss + self._task_loss(head, labelled, rows, hidden, states)

    def _task_loss(
        self, head: nn.Module, task: Task, rows: Sequence[Row], hidden: Hidden, states: Tensor
    ) -> Tensor:
        """[] the mean loss of one task's `rows`; `states` [B, H] are pooled."""
        targets = label_targets(task, pack(rows)).to(self.context.device)
        with self.context.autocast():
            read = hidden.states[targets.index] if targets.level == "position" else states
            logits = head(read).float() if read.dtype != torch.float64 else head(read)
        return end_task_losses(task.kind, logits, targets.value).mean()


def positive_weights(sizes: Sequence[int]) -> Tensor:
    """[K] ``(N_all − N_t) / N_t``: each task's positives weigh as much as its negatives."""
    counts = torch.tensor(sizes, dtype=torch.get_default_dtype())
    return (counts.sum() - counts) / counts


def epoch_batches(
    sizes: Sequence[int], batch_rows: int, seed: int, epoch: int
) -> list[tuple[int, list[int]]]:
    """(task, its rows) for every batch of an epoch: one task a batch, the batches of all tasks shuffled together."""
    batches = []
    for task, size in enumerate(sizes):
        order = torch.randperm(size, generator=generator(seed, "selection-rows", epoch, task))
        batches += [(task, part.tolist()) for part in order.split(batch_rows)]
    order = torch.randperm(len(batches), generator=generator(seed, "selection-batches", epoch))
    return [batches[i] for i in order.tolist()]
