"""Step 9 of 9. In: Alignment. Out: the next WeightState. The functions that the rules (`rules`) share.

``w_k ∝ exp(W_all[k] + W_D[d] + W_T[t] + W_R[r] + W_O[o])`` over the objectives of a step, and
``(λ_e, 1 − λ_e) = softmax(end-task, auxiliary)`` (paper, Algorithm 1). Pure functions over a frozen state, in
float64 on the CPU, so that it can be saved and resumed and is the same on every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from aang_core.config.settings import Meta
from aang_core.method.gradient.metagrad import Alignment
from aang_core.registry.records import STAGES

_BALANCE_RANGE = (0.1, 10.0)  # a scale outside of it says that a norm is noise, not size
_BALANCE_MEMORY = 0.9


@attrs.frozen(eq=False)
class Factors:
    """Which primitive each objective has at each stage. `members`: stage → [K]; `names`: stage → primitives."""

    ids: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    members: Mapping[str, Tensor]

    @classmethod
    def of(cls, ids: Sequence[str]) -> Factors:
        """From objective ids ``data/transform/representation/output``; none for a method without auxiliaries."""
        parts = [i.split("/") for i in ids]
        columns = {stage: [part[n] for part in parts] for n, stage in enumerate(STAGES)}
        names = {stage: tuple(sorted(set(column))) for stage, column in columns.items()}
        members = {
            stage: torch.tensor([names[stage].index(name) for name in column], dtype=torch.long)
            for stage, column in columns.items()
        }
        return cls(ids=tuple(ids), names=names, members=members)


@attrs.frozen(eq=False)
class WeightState:
    """Everything that the search has learned.

    :param objectives: [K] logits W_all.
    :param stages: stage → logits of its primitives.
    :param end_task: [2] logits of the end-task and of the auxiliary sum.
    :param norms: [K + 1] running gradient norms, end-task first; 0 where none was seen yet.
    :param window: sums of the signals since the last update: [K + 2] (objectives, end-task, auxiliary sum).
    :param seen: [K + 2] how many signals each sum holds.
    :param steps: steps since the last update.
    :param memory: what a rule remembers beside these, tensors by its own names; saved in checkpoints.
    """

    objectives: Tensor
    stages: Mapping[str, Tensor]
    end_task: Tensor
    norms: Tensor
    window: Tensor
    seen: Tensor
    steps: int = 0
    memory: Mapping[str, Tensor] = attrs.field(factory=dict)

    @classmethod
    def initial(cls, factors: Factors) -> WeightState:
        """All logits 0: equal weights, and half of the loss to the end-task."""
        count = len(factors.ids)
        return cls(
            objectives=_zeros(count),
            stages={stage: _zeros(len(factors.names[stage])) for stage in STAGES},
            end_task=_zeros(2),
            norms=_zeros(count + 1),
            window=_zeros(count + 2),
            seen=_zeros(count + 2),
        )

    def logits(self, factors: Factors) -> Tensor:
        """[K] summed logits."""
        shared = [self.stages[stage][factors.members[stage]] for stage in STAGES]
        return self.objectives + torch.stack(shared).sum(0)

    def placed(self, factors: Factors, logits: Tensor) -> WeightState:
        """The state whose summed logits are these ([K]); those of the stages stay."""
        return attrs.evolve(self, objectives=self.objectives + (logits - self.logits(factors)))

    def weights(self, factors: Factors, sampled: Tensor | None = None) -> Tensor:
        """Weights on the simplex, over all objectives or over the sampled ones ([n] indices)."""
        logits = self.logits(factors)
        return torch.softmax(logits if sampled is None else logits[sampled], 0)

    def stage_logits(self, factors: Factors, stage: str) -> dict[str, float]:
        """The logits of one stage's primitives, by name."""
        return dict(zip(factors.names[stage], self.stages[stage].tolist(), strict=True))

    def stage_weights(self, factors: Factors) -> dict[str, dict[str, float]]:
        """The softmax of each stage's logits, for reports (paper, Figure 4)."""
        return {
            stage: dict(
                zip(factors.names[stage], self.stages[stage].softmax(0).tolist(), strict=True)
            )
            for stage in STAGES
        }

    def window_mean(self) -> tuple[Tensor, Tensor]:
        """[K + 2] mean signals since the last update, and bool, whether there was any."""
        return self.window / self.seen.clamp(min=1), self.seen > 0

    def emptied(self, **changed: Any) -> WeightState:
        """The state with an empty window: after an update, whose results are `changed`."""
        window, seen = torch.zeros_like(self.window), torch.zeros_like(self.seen)
        return attrs.evolve(self, window=window, seen=seen, steps=0, **changed)

    @property
    def end_task_weight(self) -> float:
        """λ_e."""
        return float(self.end_task.softmax(0)[0])

    def balance(self, sampled: Tensor) -> Tensor:
        """[n] clamped running ratios ‖g_e‖ / ‖g_k‖; 1 where either norm is still unknown."""
        end_task, own = self.norms[0], self.norms[1:][sampled]
        known = (own > 0) & (end_task > 0)
        ratio = end_task / own.where(own > 0, torch.ones_like(own))
        return torch.where(known, ratio.clamp(*_BALANCE_RANGE), torch.ones_like(ratio))


def _zeros(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.float64)


def observe(
    state: WeightState, alignment: Alignment, sampled: Tensor, weights: Tensor, meta: Meta
) -> WeightState:
    """Add one step's alignments to the window; nothing moves yet.

    `alignment` holds the end-task first, then the n sampled objectives, whose weights are `weights` ([n]). The signal
    of the auxiliary sum is ``Σ w_k a_k``: for ``dot`` exactly the alignment of the weighted gradient, for ``cosine``
    the weighted mean of the cosines (it needs no norm of the sum, so it is the same for every split of the step).
    An unobserved objective (no rows, no weight) adds nothing. Norms are remembered for `balance`.
    """
    signals = alignment.values(meta.alignment).double().cpu()
    observed = alignment.observed.cpu()
    window, seen, norms = state.window.clone(), state.seen.clone(), state.norms.clone()
    slots = torch.cat([torch.tensor([-2]), sampled])  # window: objectives, then end-task, then sum
    window[slots[observed]] += signals[observed]
    seen[slots[observed]] += 1
    share = weights * observed[1:]
    if float(share.sum()) > 0:
        window[-1] += (share * signals[1:].nan_to_num()).sum() / share.sum()
        seen[-1] += 1
    new_norms = alignment.squared_norms.double().cpu().sqrt()
    places = torch.cat([torch.tensor([0]), sampled + 1])[observed]
    old, new = norms[places], new_norms[observed]
    mixed = torch.where(old > 0, _BALANCE_MEMORY * old + (1 - _BALANCE_MEMORY) * new, new)
    norms[places] = mixed
    return attrs.evolve(state, window=window, seen=seen, norms=norms, steps=state.steps + 1)


def updated(state: WeightState, factors: Factors, meta: Meta) -> WeightState:
    """Move the logits by the window's mean signals and empty the window; before its end, the same state.

    ``direct`` adds them (public code), ``softmax`` takes them through the Jacobian of w and λ (paper, eq. 4 with
    Algorithm 1), ``exponentiated`` multiplies each observed weight by ``exp(lr · a_k)`` and keeps their sum
    (mirror descent on the simplex; factors do not move). Objectives that share a primitive move its logit
    by the mean of their steps, or by the sum.
    """
    if state.steps < meta.update_every:
        return state
    mean, seen = state.window_mean()
    signal, observed = mean[:-2], seen[:-2]
    step = _objective_steps(state, factors, signal, observed, meta)
    stages = dict(state.stages)
    if meta.factored and meta.logit_step != "exponentiated":
        for stage in STAGES:
            stages[stage] = stages[stage] + _by_factor(step, observed, factors, stage, meta)
    return state.emptied(
        objectives=state.objectives + step,
        stages=stages,
        end_task=state.end_task + _end_task_step(state, mean[-2:], meta),
    )


def _objective_steps(
    state: WeightState, factors: Factors, signal: Tensor, observed: Tensor, meta: Meta
) -> Tensor:
    if not bool(observed.any()):
        return torch.zeros_like(signal)
    signal = torch.where(observed, signal, torch.zeros_like(signal))
    if meta.logit_step == "direct":
        return meta.factor_lr * signal
    if meta.logit_step == "softmax":
        weights = state.weights(factors) * observed
        weights = weights / weights.sum()
        return meta.factor_lr * weights * (signal - (weights * signal).sum())
    return share_kept(meta.factor_lr * signal, state.weights(factors), observed)


def share_kept(step: Tensor, weights: Tensor, members: Tensor) -> Tensor:
    """[K] steps of logits, less a constant for the members, so that their weights keep their sum; 0 for the others.

    :param weights: [K] before the step. :param members: [K] bool, at least one of them.
    """
    own = weights * members
    kept = torch.log((own / own.sum() * torch.exp(step)).sum())
    return torch.where(members, step - kept, torch.zeros_like(step))


def _by_factor(step: Tensor, observed: Tensor, factors: Factors, stage: str, meta: Meta) -> Tensor:
    """[primitives of the stage] the mean (or sum) of the steps of the observed objectives with that primitive."""
    members, size = factors.members[stage], len(factors.names[stage])
    total = _zeros(size).index_add(0, members, step)
    if meta.factor_reduce == "sum":
        return total
    return total / _zeros(size).index_add(0, members, observed.double()).clamp(min=1)


def _end_task_step(state: WeightState, signals: Tensor, meta: Meta) -> Tensor:
    """[2] from the mean signals of the end-task and of the auxiliary sum."""
    if meta.logit_step == "direct":
        return meta.end_task_lr * signals
    weights = state.end_task.softmax(0)
    if meta.logit_step == "softmax":
        difference = signals[0] - signals[1]
        slope = weights[0] * weights[1]
        return meta.end_task_lr * slope * torch.stack([difference, -difference])
    step = meta.end_task_lr * signals
    return step - torch.log((weights * torch.exp(step)).sum())
