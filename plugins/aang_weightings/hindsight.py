"""Credit in hindsight: what moved the parameters the way that lowered the dev loss over H steps.

The ideal credit of objective k is ``Σ_t ⟨−g_k(t), θ_{t+H} − θ_t⟩``, over stretches that end with a lower dev loss. It
needs every g_k until H steps later: H · K copies of the encoder. With one backward pass only the stretch that has
just ended can be used, and there we differ: `PastMove` makes a direction of the *past* H steps, and the gradients of
the *next* H steps are aligned with it. So an objective has credit where it still pulls the way that has just lowered
the dev loss (or against the way that has just raised it), one stretch late. An objective with a large weight
has shaped that direction itself, so the rule favours large weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aang_core.errors import ConfigError
from aang_core.method.gradient.dev_gradient import DevGradient
from aang_core.method.gradient.metagrad import Alignment, Gradient, dot
from aang_core.method.step_plan import StepPlan
from aang_core.method.weights.rules import RuleBinding
from aang_core.method.weights.weighting import Factors, WeightState, observe, share_kept


def check(options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with options of the right types."""
    if options["steps"] < 1:
        yield f"steps must be at least 1 (got {options['steps']})"


class Hindsight:
    """Options: ``steps``, H. At the end of each stretch weights take one exponentiated step of ``meta.factor_lr`` by
    their mean signals in it, and those that were not observed keep theirs; λ moves by ``meta.end_task_lr``. Logits of
    stages stay. ``meta.update_every`` and ``meta.dev_gradient_every`` have no part in it.
    """

    def __init__(self, binding: RuleBinding) -> None:
        self.meta, self.steps = binding.config.meta, int(binding.options["steps"])

    def direction(self, dev: DevGradient) -> PastMove:
        """The way of the past H steps, in the dev gradient's place."""
        return PastMove(dev, self.steps)

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, factors: Factors
    ) -> WeightState:
        """Remember; move by what the stretch has shown in its last step."""
        state = observe(state, alignment, plan.sampled, plan.weights, self.meta)
        if (plan.step + 1) % self.steps:
            return state
        mean, seen = state.window_mean()
        known, step = seen[:-2], torch.zeros_like(state.objectives)
        if bool(known.any()):
            moved = self.meta.factor_lr * torch.where(known, mean[:-2], 0.0)
            step = share_kept(moved, state.weights(factors), known)
        pair = self.meta.end_task_lr * mean[-2:]
        return state.emptied(objectives=state.objectives + step, end_task=state.end_task + pair)


class PastMove:
    """``V = Δ · (L(θ_t) − L(θ_{t−H})) / ‖Δ‖²`` with ``Δ = θ_t − θ_{t−H}`` of the body, every H steps.

    L is the loss on some dev rows (``meta.dev_rows``, others at each t), both times through the dev head of t, so that
    the difference is the body's work alone. V is the shortest vector whose product with Δ is that difference, which is
    what the mean dev gradient on the way would give. It has the unit of a dev gradient and points against Δ where the
    loss fell. Δ is what the optimiser did, moments and learning rate included. A stretch costs two forward passes of
    these rows, no backward pass, and a copy of the body. For the first H steps there is no V.

    :param dev: where its rows and its dev head come from.
    :raises ConfigError: where a fold of ``meta.dev_folds`` is not held for whole stretches.
    """

    def __init__(self, dev: DevGradient, steps: int) -> None:
        if dev.folds is not None and dev.folds.every % steps:
            raise ConfigError(
                f"weightings.hindsight.steps = {steps} needs folds that are held as long, or a multiple of it; found "
                f"meta.dev_gradient_every = {dev.folds.every}; set it to {steps}"
            )
        self.dev, self.every = dev, steps
        self.memory: Mapping[str, Tensor] = self._body()

    def at(self, step: int, previous: Gradient | None) -> Gradient | None:
        """V for this step; with a decay the running mean, as of dev gradients."""
        if step % self.every or step == 0:
            return previous
        before, self.memory = self.memory, self._body()
        move = {name: value - before[name] for name, value in self.memory.items()}
        length = dot(move, move)
        if not float(length) > 0:
            return previous  # every step was skipped
        # The rows of t − H: if they are of a fold, it was held on the whole way.
        change = self.dev.loss(step - self.every)
        with exchanged(self.dev.model.body(), before):
            change = change - self.dev.loss(step - self.every)
        fresh = {name: move[name] * (change / length) for name in self.dev.model.compared()}
        decay = self.dev.meta.dev_gradient_decay
        if previous is None or decay == 0:
            return fresh
        return {n: decay * previous[n] + (1 - decay) * fresh[n] for n in fresh}

    def _body(self) -> dict[str, Tensor]:
        body = self.dev.model.body()
        return {
            name: p.detach().clone(memory_format=torch.contiguous_format)
            for name, p in body.items()
        }


@contextmanager
def exchanged(body: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """The body has these values inside the block."""
    own = {name: parameter.data for name, parameter in body.items()}
    try:
        for name, parameter in body.items():
            parameter.data = values[name]
        yield
    finally:
        for name, parameter in body.items():
            parameter.data = own[name]
