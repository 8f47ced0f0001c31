"""Step 9 of 9, second half: the rules by which weights learn. In: Alignment and StepPlan. Out: the next WeightState.

A plugin registers a `records.Weighting` with the hook ``aang_weightings``; a run chooses one with ``meta.rule``.
`weighting` has the pure functions that rules share. Everything that a rule remembers is in `WeightState`, so a resumed
run continues bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from aang_core.batch.checks import errors_of, expect
from aang_core.config.settings import RunConfig
from aang_core.method.gradient.dev_gradient import DevGradient
from aang_core.method.gradient.metagrad import Alignment, Gradient
from aang_core.method.step_plan import StepPlan
from aang_core.method.weights.weighting import Factors, WeightState, observe, updated
from aang_core.randomness import generator
from aang_core.registry.options import settings_of
from aang_core.registry.records import STAGES, Weighting, load_factory
from aang_core.registry.registry import Registered

_INSTEAD = "choose another `meta.rule`"


@attrs.frozen(eq=False, kw_only=True)
class RuleBinding:
    """What the factory of a rule is called with, once a seed.

    :param options: the record's, with the run's ``[weightings.NAME]`` laid over them.
    :param config: the run's; `observe` needs its ``meta``.
    :param factors: the objectives and their primitives.
    """

    options: Mapping[str, Any]
    config: RunConfig
    factors: Factors
    seed: int


class Direction(Protocol):
    """What gradients are aligned with: V, or None in the steps for which there is none yet. Those then learn nothing.

    :ivar every: steps between fresh ones; `at` is asked then, and wherever there is none.
    :ivar memory: by fixed names what it remembers, on the encoder's device; saved in checkpoints and set from them.
    """

    every: int
    memory: Mapping[str, Tensor]

    def at(self, step: int, previous: Gradient | None) -> Gradient | None:
        """V for this step, by the names of the body's parameters and contiguous. :param previous: the newest."""


class Rule(Protocol):
    """A rule at work. It keeps nothing itself: what it remembers is in ``state.memory``.

    It may also have a method ``begin(state, factors) -> WeightState``: the state before the first step; and
    ``direction(dev: DevGradient) -> Direction``: what takes the dev gradient's place.
    """

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, factors: Factors
    ) -> WeightState:
        """The state after a step.

        :param alignment: of the step's losses, the end-task first, then ``plan.sampled``.
        :param plan: the step; ``plan.elapsed`` is the share of the run's steps before it.
        """


class AlgorithmOne:
    """Algorithm 1 (Dery et al., ICLR 2023) with the choices of ``meta``."""

    def __init__(self, binding: RuleBinding) -> None:
        self.meta = binding.config.meta

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, factors: Factors
    ) -> WeightState:
        """`observe`, then `updated`."""
        seen = observe(state, alignment, plan.sampled, plan.weights, self.meta)
        return updated(seen, factors, self.meta)


class Equal:
    """Weights and λ stay as they began (equal, unless a recipe says otherwise).

    Unlike the method ``static`` the run still computes dev gradients, so that its history has alignments.
    """

    def __init__(self, binding: RuleBinding) -> None:
        self.meta = binding.config.meta

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, _factors: Factors
    ) -> WeightState:
        """The same logits; gradient norms are remembered for ``meta.balance``."""
        return observe(state, alignment, plan.sampled, plan.weights, self.meta).emptied()


def make_rule(
    config: RunConfig, chosen: Registered[Weighting] | None, seed: int, factors: Factors
) -> Rule:
    """The rule of one seed.

    :param chosen: None for that of the method: equal weights, or Algorithm 1 for ``tartan``.
    :raises PluginError: where its factory fails; names the plugin.
    """
    if chosen is None:
        binding = RuleBinding(options={}, config=config, factors=factors, seed=seed)
        rule: Rule = AlgorithmOne(binding) if config.method == "tartan" else Equal(binding)
    else:
        options = settings_of(chosen.record, config.weightings)
        binding = RuleBinding(options=options, config=config, factors=factors, seed=seed)
        who = f"the weighting {chosen.record.name!r} of plugin {chosen.provenance}"
        with errors_of(who, "its factory", _INSTEAD):
            rule = _Checked(load_factory(chosen.record.factory)(binding), who)
    return Shuffled(rule, seed, factors) if config.meta.control == "shuffled" else rule


def begun(rule: Rule | None, state: WeightState, factors: Factors) -> WeightState:
    """The state before the first step, as the rule wants it; as it is where there is no rule."""
    begin = getattr(rule, "begin", None)
    return state if begin is None else begin(state, factors)


def direction_of(rule: Rule, dev: DevGradient) -> Direction:
    """What the rule's alignments are with: the dev gradient, unless it brings another direction."""
    make = getattr(rule, "direction", None)
    direction: Direction = dev if make is None else make(dev)
    return direction


class _Checked:
    """A plugin's rule: its errors bear its name, and what it returns is looked at."""

    def __init__(self, rule: Rule, who: str) -> None:
        self.rule, self.who = rule, who

    def begin(self, state: WeightState, factors: Factors) -> WeightState:
        """:raises PluginError: as `next`."""
        with errors_of(self.who, "begin", _INSTEAD):
            return _sound(begun(self.rule, state, factors), factors)

    def direction(self, dev: DevGradient) -> Direction:
        """:raises PluginError: as `next`, and so do the direction's own calls."""
        with errors_of(self.who, "direction", _INSTEAD):
            found = direction_of(self.rule, dev)
        return found if found is dev else _CheckedDirection(found, self.who)

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, factors: Factors
    ) -> WeightState:
        """:raises PluginError: where the rule fails, or what it returns is no state of finite logits."""
        with errors_of(self.who, f"step {plan.step + 1}", _INSTEAD):
            return _sound(self.rule.next(state, alignment, plan, factors), factors)


class _CheckedDirection:
    """A plugin's direction: its errors bear the name of the rule."""

    def __init__(self, direction: Direction, who: str) -> None:
        self.inner, self.who, self.every = direction, who, direction.every

    @property
    def memory(self) -> Mapping[str, Tensor]:
        """The direction's own."""
        return self.inner.memory

    @memory.setter
    def memory(self, memory: Mapping[str, Tensor]) -> None:
        self.inner.memory = memory

    def at(self, step: int, previous: Gradient | None) -> Gradient | None:
        """:raises PluginError: where it fails."""
        with errors_of(self.who, f"its direction at step {step + 1}", _INSTEAD):
            return self.inner.at(step, previous)


def _sound(state: WeightState, factors: Factors) -> WeightState:
    """The state itself.

    :raises BrokenContract: where it is none, or its logits or its memory are not what they must be.
    """
    expect(isinstance(state, WeightState), f"expected a WeightState, found {type(state).__name__}")
    count = len(factors.ids)
    own = list(state.objectives.shape)
    expect(own == [count], f"expected logits of {count} objectives, found {own}")
    found = torch.cat([state.logits(factors), state.end_task])
    expect(bool(torch.isfinite(found).all()), "expected finite logits, found others")
    for name, value in state.memory.items():
        kind = type(value).__name__
        expect(isinstance(value, Tensor), f"expected a tensor in memory[{name!r}], found {kind}")
    return state


_OWN = "control."


class Shuffled:
    """The permutation control: what the rule learns of an objective moves the weight of another one.

    The rule sees what it always sees, and keeps a state of its own. What its summed logits have moved by since the
    start is laid upon the logits of the training through one permutation that the seed draws: a single cycle, so
    that no objective keeps its own. λ moves as the rule says. Logits of stages stay where they began. A run under
    this control has weights as uneven as those of the run that it controls, and they know nothing of the
    objectives.
    """

    def __init__(self, rule: Rule, seed: int, factors: Factors) -> None:
        self.rule = rule
        count = len(factors.ids)
        order = torch.randperm(count, generator=generator(seed, "control"))
        self.taken_from = torch.empty_like(order)  # [K] whose movement each objective is given
        self.taken_from[order] = order.roll(1)

    def begin(self, state: WeightState, factors: Factors) -> WeightState:
        """The rule's own beginning, kept beside as the rule's state."""
        return self._outer(begun(self.rule, state, factors), None, factors)

    def direction(self, dev: DevGradient) -> Direction:
        """The rule's own."""
        return direction_of(self.rule, dev)

    def next(
        self, state: WeightState, alignment: Alignment, plan: StepPlan, factors: Factors
    ) -> WeightState:
        """The rule's next state, shuffled."""
        memory = state.memory
        inner = attrs.evolve(
            state,
            objectives=memory[f"{_OWN}objectives"],
            stages={stage: memory[f"{_OWN}{stage}"] for stage in STAGES},
            memory={n: value for n, value in memory.items() if not n.startswith(_OWN)},
        )
        return self._outer(self.rule.next(inner, alignment, plan, factors), state, factors)

    def _outer(
        self, inner: WeightState, before: WeightState | None, factors: Factors
    ) -> WeightState:
        logits = inner.logits(factors)
        start = logits if before is None else before.memory[f"{_OWN}start"]
        own = {f"{_OWN}{stage}": inner.stages[stage] for stage in STAGES}
        own |= {f"{_OWN}objectives": inner.objectives, f"{_OWN}start": start}
        stages = inner.stages if before is None else before.stages
        outer = attrs.evolve(inner, stages=stages, memory={**inner.memory, **own})
        return outer.placed(factors, start + (logits - start)[self.taken_from])
