"""Fixed shares for groups of objectives, so that none wins because its rows overlap with the end-task's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aang_core.errors import ConfigError, did_you_mean
from aang_core.method.gradient.metagrad import Alignment
from aang_core.method.step_plan import StepPlan
from aang_core.method.weights.rules import RuleBinding
from aang_core.method.weights.weighting import Factors, WeightState, observe, share_kept
from aang_core.registry.records import STAGES


def check(options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with options of the right types."""
    stages = options["by"].split("+")
    if strange := [stage for stage in stages if stage not in STAGES]:
        yield f"by must be one or several of {'+'.join(STAGES)} (got {strange[0]!r})"
    for name, share in options["shares"].items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not share > 0:
            yield f"shares.{name} must be a number above 0 (got {share!r})"


class Budget:
    """Options: ``by``, the stages whose primitives make the groups (``data``, or several, as ``data+output``);
    ``shares``, a relative share for groups by name, 1 where none is given.

    A group's name is the primitive's, up to a colon: the sources ``aux:a`` and ``aux:b`` are the group ``aux``.
    Groups of several stages are joined as ``task+denoise``. Within a group weights learn by exponentiated steps of
    ``meta.factor_lr``, and those that were not observed keep theirs. λ and the logits of stages stay.
    """

    def __init__(self, binding: RuleBinding) -> None:
        self.meta = binding.config.meta
        names = grouped(binding.factors.ids, binding.options["by"].split("+"))
        shares = binding.options["shares"]
        known = sorted(set(names))
        for name in shares:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ConfigError(
                    f"[weightings.budget.shares] names the group {name!r}; the groups of this run are "
                    f"{', '.join(known)}{hint}"
                )
        wanted = torch.tensor([float(shares.get(name, 1.0)) for name in known]).double()
        self.shares = wanted / wanted.sum()
        self.groups = torch.tensor([[own == name for own in names] for name in known])

    def begin(self, state: WeightState, factors: Factors) -> WeightState:
        """The groups have their shares; within each, weights are as they were."""
        weights = state.weights(factors)
        logits = state.logits(factors)
        for share, members in zip(self.shares, self.groups, strict=True):
            logits = logits + members * torch.log(share / (weights * members).sum())
        return state.placed(factors, logits)

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, factors: Factors
    ) -> WeightState:
        """Weights move within each group by the window's mean signals."""
        state = observe(state, alignment, plan.sampled, plan.weights, self.meta)
        if state.steps < self.meta.update_every:
            return state
        mean, seen = state.window_mean()
        weights, step = state.weights(factors), torch.zeros_like(state.objectives)
        moved = self.meta.factor_lr * torch.where(seen, mean, 0.0)[:-2]
        for group in self.groups:
            members: Tensor = group & seen[:-2]
            if bool(members.any()):
                step = step + share_kept(moved, weights, members)
        return state.emptied(objectives=state.objectives + step)


def grouped(ids: Sequence[str], stages: Sequence[str]) -> list[str]:
    """The name of each objective's group."""
    places = [STAGES.index(stage) for stage in stages]
    parts = [id_.split("/") for id_ in ids]
    return ["+".join(part[place].partition(":")[0] for place in places) for part in parts]
