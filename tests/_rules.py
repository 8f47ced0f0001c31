"""Weighting rules at work on made-up steps, and a registry that has them, installed or not."""

from __future__ import annotations

import attrs
import torch
from _plugins import ORIGIN
from aang_weightings.hooks import aang_weightings

from aang_core.config.settings import RunConfig
from aang_core.method.gradient.metagrad import Alignment
from aang_core.method.step_plan import StepPlan
from aang_core.method.weights.rules import begun, make_rule
from aang_core.method.weights.weighting import Factors, WeightState
from aang_core.registry.registry import Registered, load_registry

RECORDS = {record.name: record for record in aang_weightings()}
IDS = (
    "task/mask/bidirectional/denoise",
    "task/mask/bidirectional/end-task",
    "task/no-op/left-to-right/denoise",
    "in-domain/mask/bidirectional/denoise",
    "in-domain/no-op/left-to-right/denoise",
    "aux:a/no-op/bidirectional/supervised",
    "aux:b/no-op/bidirectional/supervised",
)
K = len(IDS)


def registry(*records):
    """What is installed, with our own rules and `records`."""
    rules = {**RECORDS, **{record.name: record for record in records}}
    entries = {name: Registered(record=rule, provenance=ORIGIN) for name, rule in rules.items()}
    return attrs.evolve(load_registry(), weightings=entries)


@attrs.frozen(eq=False)
class Look:
    """What a step shows. :param signals: end-task first, then `sampled`; None where it was not observed."""

    signals: list
    sampled: list
    chances: list = None
    norms: float = 1.0

    @property
    def alignment(self):
        observed = torch.tensor([signal is not None for signal in self.signals])
        dots = torch.tensor([signal or 0.0 for signal in self.signals], dtype=torch.float64)
        one = torch.tensor(1.0, dtype=torch.float64)
        return Alignment(dots, torch.full_like(dots, self.norms), observed, one)


class Course:
    """A rule that goes through looks; its states."""

    def __init__(self, name, ids=IDS, options=None, meta=None, control="none", seed=0, start=None):
        raw = {"meta": {"alignment": "dot", "control": control, **(meta or {})}}
        self.config = RunConfig.from_mapping({**raw, "weightings": {name: options or {}}})
        self.factors = Factors.of(ids)
        entry = Registered(record=RECORDS[name], provenance=ORIGIN)
        self.rule = make_rule(self.config, entry, seed, self.factors)
        state = WeightState.initial(self.factors)
        if start is not None:
            state = attrs.evolve(state, objectives=torch.tensor(start, dtype=torch.float64).log())
        self.states = [begun(self.rule, state, self.factors)]

    @property
    def state(self):
        return self.states[-1]

    @property
    def weights(self):
        return self.state.weights(self.factors)

    def step(self, look, elapsed=0.5):
        sampled = torch.tensor(look.sampled)
        weights = self.state.weights(self.factors, sampled)
        chances = look.chances or [1.0] * len(sampled)
        plan = StepPlan(
            step=len(self.states) - 1,
            end_task_rows=4,
            sampled=sampled,
            weights=weights,
            candidates=sampled,
            candidate_weights=weights,
            chances=torch.tensor(chances, dtype=torch.float64),
            rows=(1,) * len(sampled),
            coefficients=torch.ones(1 + len(sampled), dtype=torch.float64),
            end_task_weight=self.state.end_task_weight,
            elapsed=elapsed,
        )
        self.states.append(self.rule.next(self.state, look.alignment, plan, self.factors))
        return self

    def through(self, looks):
        for i, look in enumerate(looks):
            self.step(look, elapsed=i / len(looks))
        return self


def random_looks(count, seed=0, hidden=()):
    """Looks of random signals at random subsets; the objectives `hidden` are never observed."""
    draw = torch.Generator().manual_seed(seed)
    looks = []
    for _ in range(count):
        size = int(torch.randint(2, K + 1, (1,), generator=draw))
        sampled = torch.randperm(K, generator=draw)[:size].sort().values.tolist()
        signals = (torch.rand(size + 1, generator=draw, dtype=torch.float64) * 1.6 - 0.7).tolist()
        missing = (torch.rand(size + 1, generator=draw) < 0.2).tolist()
        shown = [
            None if gone or (i and sampled[i - 1] in hidden) else signal
            for i, (signal, gone) in enumerate(zip(signals, missing, strict=True))
        ]
        chances = (torch.rand(size, generator=draw) * 0.9 + 0.1).tolist()
        looks.append(Look(shown, sampled, chances))
    return looks
