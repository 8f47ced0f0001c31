"""EXP3 over the objectives, as in FLAD.

Albalak et al., "Improving Few-Shot Generalization by Exploring and Exploiting Auxiliary Data", NeurIPS 2023; after Auer
et al., "The Nonstochastic Multiarmed Bandit Problem", SIAM Journal on Computing, 2002.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aang_core.method.gradient.metagrad import Alignment
from aang_core.method.step_plan import StepPlan
from aang_core.method.weights.rules import RuleBinding
from aang_core.method.weights.weighting import Factors, WeightState, observe


def exploration(turn: int, arms: int) -> float:
    """ε_t = min(1/K, √(ln K / (K t))), never below 0.5/K; `turn` counts from 1."""
    return max(0.5 / arms, min(1 / arms, math.sqrt(math.log(arms) / (arms * turn))))


class Bandit:
    """A turn is a step; an objective's reward is its alignment, divided by the probability with which the step
    observed it (1 where every step holds all objectives), so that rarely seen ones are not at a disadvantage. After
    t turns ``w_k = (1 − K ε_{t+1}) softmax(ε_t R)_k + ε_{t+1}``, R the summed rewards. A warm start is a constant
    in the softmax.

    The weights that a run can reach lie above 0.5/K. FLAD draws one task for each batch by these weights; here they
    share the step's rows. λ and the logits of stages stay; ``meta.factor_lr`` and ``meta.update_every`` have no
    part in it.
    """

    def __init__(self, binding: RuleBinding) -> None:
        self.meta = binding.config.meta

    def begin(self, state: WeightState, factors: Factors) -> WeightState:
        """No turn yet; the first one explores alone."""
        prior = torch.log_softmax(state.logits(factors), 0)
        none = torch.zeros_like(prior)
        turns = torch.zeros((), dtype=torch.long)
        state = state.emptied(memory={"prior": prior, "rewards": none, "turns": turns})
        return state.placed(factors, self._weights(prior, none, 0).log())

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, factors: Factors
    ) -> WeightState:
        """Add the step's rewards, and weigh by them."""
        state = observe(state, alignment, plan.sampled, plan.weights, self.meta)
        memory, turns = state.memory, int(state.memory["turns"]) + 1
        seen = alignment.observed.cpu()[1:]
        signals = alignment.values(self.meta.alignment).double().cpu()[1:]
        rewards = memory["rewards"].clone()
        rewards[plan.sampled[seen]] += signals[seen] / plan.chances[seen]
        kept = {"prior": memory["prior"], "rewards": rewards, "turns": torch.tensor(turns)}
        weights = self._weights(memory["prior"], rewards, turns)
        return state.emptied(memory=kept).placed(factors, weights.log())

    def _weights(self, prior: Tensor, rewards: Tensor, turns: int) -> Tensor:
        arms = len(rewards)
        rate, floor = exploration(max(turns, 1), arms), exploration(turns + 1, arms)
        return (1 - arms * floor) * torch.softmax(prior + rate * rewards, 0) + floor
