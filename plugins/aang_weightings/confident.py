"""Move logits only as far as the evidence supports.

One look at an alignment is mostly noise: for an objective that helps for certain, the cosine with a dev gradient of
64 rows is 0.2 on average with a spread of 0.25. So the rule keeps, for each objective, a running mean m of its
looks and the standard error e of that mean, and steps by ``sign(m) · max(|m| − errors · e, 0)``: the end of the
confidence interval that lies nearer to 0, or 0 if the interval contains 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from aang_core.method.gradient.metagrad import Alignment
from aang_core.method.step_plan import StepPlan
from aang_core.method.weights.rules import RuleBinding
from aang_core.method.weights.weighting import Factors, WeightState, observe, share_kept

Memory = Mapping[str, Tensor]
"""[K + 2] each (objectives, end-task, auxiliary sum). ``total`` and ``squares``: sums of the looks' weights and of
their squares; ``mean``; ``spread``: the weighted sum of squared distances from it."""

_NAMES = ("total", "squares", "mean", "spread")


def check(options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with options of the right types."""
    if options["lr"] < 0 or options["errors"] < 0:
        yield f"lr and errors must be at least 0 (got {options['lr']} and {options['errors']})"
    if not 0 <= options["start"] < 1:
        yield f"start must be a share of the steps, from 0 to below 1 (got {options['start']})"
    if options["looks"] < 2:
        yield f"looks must be at least 2, or there is no standard error (got {options['looks']})"
    if not 0 < options["forget"] <= 1:
        yield f"forget must be above 0 and at most 1 (got {options['forget']})"


class Confident:
    """Options: ``lr``, the length of a step for an alignment of 1; ``errors``, how many standard errors are taken
    off; ``start``, the share of the steps in which nothing moves; ``looks``, from how many on an objective is
    known; ``forget``, what each look keeps of the weight of those before it (alignments drift), 1 for all.

    A look is the mean over ``meta.update_every`` steps, or over ``meta.dev_gradient_every`` where those are more,
    so that no two looks share a dev gradient. Where dev gradients are running means (decay d), errors grow by √((1
    + d)/(1 − d)). λ moves in the same way, by ``meta.end_task_lr``. Logits of stages stay.
    """

    def __init__(self, binding: RuleBinding) -> None:
        self.meta, self.options = binding.config.meta, binding.options
        self.every = max(self.meta.update_every, self.meta.dev_gradient_every)
        decay = self.meta.dev_gradient_decay
        self.errors = self.options["errors"] * ((1 + decay) / (1 - decay)) ** 0.5

    def begin(self, state: WeightState, _factors: Factors) -> WeightState:
        """Nothing is known."""
        return state.emptied(memory={name: torch.zeros_like(state.window) for name in _NAMES})

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, factors: Factors
    ) -> WeightState:
        """Remember; at the end of a look move what is known, so that what is not known keeps its share."""
        state = observe(state, alignment, plan.sampled, plan.weights, self.meta)
        if state.steps < self.every:
            return state
        memory = remembered(state.memory, *state.window_mean(), self.options["forget"])
        mean, error, count = estimated(memory)
        known = count >= self.options["looks"]
        sure = torch.sign(mean) * (mean.abs() - self.errors * error).clamp(min=0)
        step, pair = torch.zeros_like(state.objectives), torch.zeros_like(state.end_task)
        if plan.elapsed >= self.options["start"]:
            if bool(known[:-2].any()):
                moved = self.options["lr"] * torch.where(known, sure, 0.0)[:-2]
                step = share_kept(moved, state.weights(factors), known[:-2])
            if bool(known[-2:].all()):
                pair = self.meta.end_task_lr * sure[-2:]
        return state.emptied(
            objectives=state.objectives + step, end_task=state.end_task + pair, memory=memory
        )


def remembered(memory: Memory, looks: Tensor, seen: Tensor, forget: float) -> Memory:
    """The memory after one more look of those that were seen (West, CACM 1979, with weights that fade)."""
    total = forget * memory["total"] + 1
    distance = looks - memory["mean"]
    mean = memory["mean"] + distance / total
    new = {
        "total": total,
        "squares": forget**2 * memory["squares"] + 1,
        "mean": mean,
        "spread": forget * memory["spread"] + distance * (looks - mean),
    }
    return {name: torch.where(seen, new[name], memory[name]) for name in _NAMES}


def estimated(memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted means, their standard errors (infinite below two looks), and the effective numbers of looks."""
    total, squares = memory["total"], memory["squares"]
    count = torch.where(total > 0, total.square() / squares.clamp(min=1), 0.0)
    freedom = total - squares / total.clamp(min=1)  # n − 1 where nothing fades
    enough = count > 1 + 1e-9
    error = (memory["spread"] / freedom.where(enough, torch.ones_like(freedom)) / count).sqrt()
    return memory["mean"], error.where(enough, torch.full_like(error, torch.inf)), count
