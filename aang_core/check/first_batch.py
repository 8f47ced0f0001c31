"""Check once before the first step that primitives do not change their input or draw from global randomness.

Both would go unnoticed, and the run could not be repeated or resumed. The check needs copies and a second call. So it
runs once for each seed, for every primitive, on a few rows of the first objective that has it. Cheap checks run at
every call (`aang_core.batch.checks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Generator

from aang_core.batch.checks import check_losses, check_packed, check_rows, check_targets, errors_of
from aang_core.batch.packing import BoundObjective, pack, row_rules
from aang_core.batch.protocols import Teaching, asks_teacher, first_memory, taught
from aang_core.batch.rows import Hidden, Packed, Row, Targets
from aang_core.batch.stream import RowRule
from aang_core.check.purity import differences, frozen_copy, global_states
from aang_core.errors import PluginError, one_message
from aang_core.method.gradient.metagrad import Model
from aang_core.method.heads import ObjectiveHeads
from aang_core.randomness import evaluating, generator

R = TypeVar("R")
_ROWS = 4


def check_first_batch(model: Model, objectives: Sequence[BoundObjective], seed: int) -> None:
    """Try every primitive of these objectives.

    :raises PluginError: names each one that changes its input, uses global randomness, or answers the same question
        in two ways, with its distribution; or that fails.
    """
    trial = _Trial(model, seed)
    with evaluating(model.heads), torch.no_grad():
        for number, objective in enumerate(objectives, 1):
            if len(objective.source):
                trial.of(number, objective)
    if trial.faults:
        raise PluginError(one_message(trial.faults, "primitives that break their contract"))


class _Trial:
    """:ivar faults: what was found, once for each primitive."""

    def __init__(self, model: Model, seed: int) -> None:
        self.model, self.seed = model, seed
        self.faults: list[str] = []
        self.tried: set[tuple[int, str]] = set()

    def of(self, number: int, objective: BoundObjective) -> None:
        """Take a few rows through the stages of one objective, its number in the model's heads being `number`."""
        rows, layout = objective.need.at_least(_ROWS), objective.output.layout

        def draw(g: Generator) -> list[Row]:
            return _checked(objective.source.draw(layout, rows, g), check_rows, rows)

        def apply(g: Generator) -> Packed:
            return _checked(objective.transform.apply(packed, g), check_packed, rows)

        def rule(g: Generator) -> tuple[Packed, tuple[RowRule, ...]]:
            return row_rules(objective.representation, packed, g)

        def targets_of(_: Generator) -> Targets:
            return _checked(objective.output.targets(packed), check_targets, packed)

        packed = pack(self._call(objective, "data", "draw", (), draw))
        packed = self._call(objective, "transform", "apply", packed, apply)
        packed, _ = self._call(objective, "representation", "its rule", packed, rule)
        targets = self._call(objective, "output", "targets", packed, targets_of)
        if len(targets):
            self._losses(number, objective, packed, targets)

    def _losses(
        self, number: int, objective: BoundObjective, packed: Packed, targets: Targets
    ) -> None:
        backbone = self.model.backbone
        like = next(backbone.body.parameters())
        draw = generator(self.seed, "first-batch", number)
        states = torch.randn(len(packed.special), backbone.hidden_size, generator=draw)
        hidden, there = Hidden(states.to(like), packed.offsets), targets.to(like.device)
        heads: ObjectiveHeads = self.model.heads
        if asks_teacher(objective.output):
            there = self._taught(objective, hidden, there)
        self._call(
            objective,
            "output",
            "losses",
            (hidden, there),
            lambda _: _checked(
                objective.output.losses(heads.head(number), hidden, there), check_losses, there
            ),
        )

    def _taught(self, objective: BoundObjective, hidden: Hidden, targets: Targets) -> Targets:
        """The targets after answers of the end-task's head."""
        output: Any = objective.output
        rows = torch.arange(len(hidden.offsets) - 1, device=hidden.states.device)
        answers = self.model.heads.head(0)(hidden, rows)
        teaching = Teaching(
            answers=answers,
            labelled=answers,
            labels=answers.argmax(-1),
            memory=first_memory(output),
            elapsed=1.0,
        )
        given = (targets, teaching)
        new, _ = self._call(
            objective, "output", "taught", given, lambda _: taught(output, targets, teaching)
        )
        return new

    def _call(
        self,
        objective: BoundObjective,
        stage: str,
        method: str,
        given: Any,
        call: Callable[[torch.Generator], R],
    ) -> R:
        """What a method answers; the first time that a primitive is met it is asked twice and watched."""
        who = objective.who(stage)
        key = (id(getattr(objective, "source" if stage == "data" else stage)), method)
        with errors_of(who, f"{method} for {objective.id}"):
            if key in self.tried:
                return call(generator(self.seed, "first-batch"))
            self.tried.add(key)
            before, states = frozen_copy(given), global_states()
            answer = call(generator(self.seed, "first-batch"))
            touched = [name for name, state in global_states().items() if state != states[name]]
            changed = differences(given, before)
            first = frozen_copy(answer)
            again = call(generator(self.seed, "first-batch"))
            unlike = differences(first, again)
        if touched:
            self._fault(
                f"{who} uses the global random state of {', '.join(touched)} in {method}; expected it to draw from "
                "the generator that it is given"
            )
        if changed:
            self._fault(
                f"{who} changes its input in {method} ({', '.join(changed[:3])}); expected a new object"
            )
        elif unlike and not touched:
            self._fault(
                f"{who} gives two answers in {method} for the same rows and generator "
                f"({', '.join(unlike[:3]) or 'the whole'})"
            )
        return answer

    def _fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)


def _checked(answer: R, check: Callable[..., None], *given: object) -> R:
    """The answer, after a check of its shapes."""
    check(answer, *given)
    return answer
