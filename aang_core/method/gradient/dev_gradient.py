"""The direction that the search follows: the end-task's gradient on dev, through a head fitted for it.

Paper, Algorithm 1 and eq. 5: a fresh dev head φ* is fitted with the body frozen, then ``V = ∇θ L_dev([θ_body; φ*])``
is taken over other examples (Appendix D has the sizes). The body does not change while the head is fitted, so one
encoder pass serves all its steps. Dropout is off for both.

V is over the parameters of `Model.compared`, not always the whole body: no other weight's gradient is formed.

We differ if ``meta.dev_head_start`` is ``end-task``: φ* begins as the end-task's current head. A fresh head reads the
classes along other directions than the head in training. Early in a run even the end-task's own gradient is then
orthogonal to V (docs/choices.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from aang_core.batch.packing import pack, plain_batch
from aang_core.batch.rows import Row
from aang_core.config.settings import Meta
from aang_core.method.cross_fitting import Folds
from aang_core.method.end_task import EndTask
from aang_core.method.gradient.metagrad import Gradient, Model
from aang_core.method.gradient.row_gradients import added, by_rows, coalesced
from aang_core.randomness import evaluating, generator


class DevGradient:
    """Computes V; keeps nothing but what it was made with.

    :param dev: rows that the meta-gradient may see (all of dev, less what is held back).
    :param train: labelled training rows, for fitting the dev head where the configuration says so.
    :param folds: of `train`; where there are any, the fold of the step stands for `dev`, and the others for `train`.
    :ivar every: steps between fresh ones. :ivar memory: nothing (`rules.Direction`).
    """

    def __init__(
        self,
        model: Model,
        end_task: EndTask,
        dev: Sequence[Row],
        train: Sequence[Row],
        meta: Meta,
        seed: int,
        folds: Folds | None = None,
    ) -> None:
        self.model, self.end_task, self.meta, self.seed = model, end_task, meta, seed
        self.dev, self.train, self.folds = dev, train, folds
        self.every = meta.dev_gradient_every
        self.memory: Mapping[str, Tensor] = {}
        self.device = next(model.backbone.body.parameters()).device

    def at(self, step: int, previous: Gradient | None) -> Gradient:
        """V for this step; with `previous` and a decay, the running mean ``d · V_old + (1 − d) · V_new``."""
        fit, measure = self._examples(step)
        with evaluating(self.model.backbone.body):
            head = self._fitted_head(fit)
            fresh = self._gradient(head, measure)
        decay = self.meta.dev_gradient_decay
        if previous is None or decay == 0:
            return fresh
        return {n: coalesced(added(decay * previous[n], (1 - decay) * fresh[n])) for n in fresh}

    def loss(self, step: int) -> Tensor:
        """The mean loss of this step's rows through the dev head, as the body is now; without a gradient.

        In full precision, also under autocast: what two losses differ by may be small.
        """
        fit, measure = self._examples(step)
        full = torch.autocast(self.device.type, enabled=False)
        with full, evaluating(self.model.backbone.body):
            head = self._fitted_head(fit)
            with torch.no_grad():
                return self._loss(head, measure)

    def _examples(self, step: int) -> tuple[list[Row], list[Row]]:
        """Rows that fit the head, and other rows that give the gradient."""
        dev, train = self.dev, self.train
        if self.folds is not None:
            fold = self.folds.of(step)
            dev, train = self.folds.held[fold], self.folds.others[fold]
        order = torch.randperm(len(dev), generator=generator(self.seed, "dev", step)).tolist()
        measure = [dev[i] for i in order[: self.meta.dev_rows]]
        if self.meta.dev_head_split == "dev":
            rest = order[self.meta.dev_rows :][: self.meta.dev_head_rows]
            return [dev[i] for i in rest], measure
        drawn = torch.randperm(len(train), generator=generator(self.seed, "dev-head", step))
        return [train[i] for i in drawn[: self.meta.dev_head_rows].tolist()], measure

    def _initial_head(self) -> nn.Module:
        if self.meta.dev_head_start == "end-task":
            return deepcopy(self.model.heads.head(0)).eval()
        return self.end_task.head().to(self.device).eval()

    def _fitted_head(self, rows: Sequence[Row]) -> nn.Module:
        head = self._initial_head()
        if self.meta.dev_head_steps == 0:
            return head
        batch, targets = plain_batch(rows).to(self.device), self.end_task.targets(pack(rows))
        with torch.no_grad():
            hidden = self.model.backbone.encode(batch)
        optimizer = torch.optim.AdamW(
            head.parameters(),
            lr=self.meta.dev_head_lr,
            weight_decay=self.meta.dev_head_weight_decay,
        )
        targets = targets.to(self.device)
        for _ in range(self.meta.dev_head_steps):
            optimizer.zero_grad()
            torch.autograd.backward(self.end_task.losses(head, hidden, targets).mean())
            optimizer.step()
        return head

    def _loss(self, head: nn.Module, rows: Sequence[Row]) -> Tensor:
        hidden = self.model.backbone.encode(plain_batch(rows).to(self.device))
        targets = self.end_task.targets(pack(rows)).to(self.device)
        return self.end_task.losses(head, hidden, targets).mean()

    def _gradient(self, head: nn.Module, rows: Sequence[Row]) -> Gradient:
        compared = self.model.compared()
        parameters = list(compared.values())
        with by_rows(self.model.backbone.body):
            loss = self._loss(head, rows)
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        # contiguous, as a checkpoint gives it back: the layout decides the order of a sum, and so its last bit
        return {
            name: torch.zeros_like(parameter) if grad is None else _settled(grad)
            for (name, parameter), grad in zip(compared.items(), grads, strict=True)
        }


def _settled(gradient: Tensor) -> Tensor:
    return coalesced(gradient) if gradient.is_sparse else gradient.contiguous()
