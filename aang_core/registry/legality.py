"""Step 4 of 9, second half. In: a space. Out: its legal objectives, and for each illegal one the reason.

An objective is one choice at each stage (Dery et al., ICLR 2023, §3). There is no list of
legal combinations: legality follows from the capabilities that the primitives provide, require and conflict with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import attrs

from aang_core.errors import ConfigError, TaskError, one_message
from aang_core.registry.records import STAGES, DataSource, Primitive, Space
from aang_core.registry.registry import Registry

Capabilities = frozenset[str]


@attrs.frozen(order=True)
class Objective:
    """One choice at each of the four stages, by name."""

    data: str
    transform: str
    representation: str
    output: str

    @property
    def id(self) -> str:
        """``data/transform/representation/output``."""
        return "/".join(self.choices)

    @property
    def choices(self) -> tuple[str, ...]:
        """The four names in the order of `STAGES`."""
        return tuple(getattr(self, stage) for stage in STAGES)

    def __str__(self) -> str:
        return self.id

    @classmethod
    def parse(cls, text: str, registry: Registry) -> Objective:
        """The objective of this id.

        :raises ConfigError: where it has not four parts, or a part is no primitive of its stage.
        """
        parts = text.split("/")
        if len(parts) != len(STAGES):
            raise ConfigError(f"an objective is {'/'.join(STAGES)} (got {text!r})")
        faults = []
        for stage, name in zip(STAGES, parts, strict=True):
            known = registry.at_stage(stage)
            if name not in known:
                faults.append(f"{text!r}: " + registry.unknown("primitive", name, known))
        if faults:
            raise ConfigError(one_message(faults, f"objective {text!r}"))
        return cls(*parts)


@attrs.frozen
class Legal:
    """An objective that can be trained.

    :param needs: capabilities that depend on the data; empty once it is bound.
    """

    objective: Objective
    needs: tuple[str, ...] = ()


@attrs.frozen
class Illegal:
    """An objective that cannot be trained, and why."""

    objective: Objective
    reason: str


Verdict = Legal | Illegal


def enumerate_objectives(
    space: Space,
    registry: Registry,
    *,
    provided: Mapping[str, Capabilities] | None = None,
    unavailable: Mapping[str, str] | None = None,
    backbone_capabilities: Capabilities | None = None,
    task_capabilities: Capabilities | None = None,
    run_capabilities: Capabilities | None = None,
) -> tuple[Verdict, ...]:
    """Judge every combination of a space, in the order in which its blocks list them, each once.

    :param provided: by data source, which of its ``may_provide`` the bound data has. A source that is not
        in it is open: what it may provide counts as provided, and is listed in `Legal.needs`.
    :param unavailable: by data source, why it could not be bound.
    :param backbone_capabilities: what the encoder can do; None where it is not known yet, and counts as able.
    :param task_capabilities: what the task is and has (`data.task.Task.capabilities`); None where there is no task yet,
        and what is asked of it is listed in `Legal.needs`.
    :param run_capabilities: what the run's settings give (`RunConfig.capabilities`); None, likewise, where there is no
        run.
    :raises TaskError: where a source that the space does not call optional is unavailable.
    """
    missing = dict(unavailable or {})
    _check_required(space, missing, registry)
    combinations = dict.fromkeys(
        Objective(*names)
        for block in space.blocks
        for names in product(*(block.names(stage) for stage in STAGES))
    )
    return tuple(
        Illegal(objective, missing[objective.data])
        if objective.data in missing
        else judge(
            objective,
            registry,
            settled=(provided or {}).get(objective.data),
            backbone_capabilities=backbone_capabilities,
            task_capabilities=task_capabilities,
            run_capabilities=run_capabilities,
        )
        for objective in combinations
    )


def judge(
    objective: Objective,
    registry: Registry,
    *,
    settled: Capabilities | None = None,
    backbone_capabilities: Capabilities | None = None,
    task_capabilities: Capabilities | None = None,
    run_capabilities: Capabilities | None = None,
) -> Verdict:
    """Whether one objective is legal.

    It is where every requirement of its four primitives is among the capabilities of all of them, of the encoder, of
    the task and of the run, and no conflict is.

    :param settled: what the bound data really provides; None where no data is bound.
    """
    chosen = [registry.primitive(name) for name in objective.choices]
    source = chosen[0]
    may = source.may_provide if isinstance(source, DataSource) else frozenset()
    open_ = may - source.capabilities if settled is None else frozenset()
    owned: dict[str, Capabilities] = {p.stage: p.capabilities for p in chosen}
    owned["data"] |= settled or frozenset()
    owned["backbone"] = backbone_capabilities or frozenset()
    owned["task"] = task_capabilities or frozenset()
    owned["run"] = run_capabilities or frozenset()
    has = frozenset().union(*owned.values())
    unknown = {"task": task_capabilities is None, "run": run_capabilities is None}

    reasons: list[str] = []
    needs: list[str] = []
    for primitive in chosen:
        for capability in sorted(primitive.requires - has):
            if capability in open_ or unknown.get(capability.partition(":")[0], False):
                needs.append(capability)
            elif backbone_capabilities is not None or not capability.startswith("backbone:"):
                reasons.append(_lacking(primitive, capability, objective))
        for capability in sorted(primitive.conflicts & has):
            reasons.append(_conflict(primitive, capability, owned, objective))
        # data that may bring a conflict is not yet illegal; what must not turn up is said
        needs += [f"without {c}" for c in sorted(primitive.conflicts & open_)]
    if reasons:
        return Illegal(objective, ". ".join(dict.fromkeys(reasons)))
    return Legal(objective, tuple(dict.fromkeys(needs)))


def legal_objectives(verdicts: Iterable[Verdict], space: Space) -> tuple[Objective, ...]:
    """The objectives that a run trains.

    :raises ConfigError: where none is legal; says the reasons, each with how many objectives it rules out.
    """
    judged = list(verdicts)
    legal = tuple(v.objective for v in judged if isinstance(v, Legal))
    if not legal:
        counts = Counter(v.reason for v in judged if isinstance(v, Illegal))
        lines = [f"{number} × {reason}" for reason, number in counts.most_common()]
        raise ConfigError(
            f"space {space.name!r} has no legal objective among its {len(judged)}:\n  - "
            + "\n  - ".join(lines)
        )
    return legal


def objective_rows(verdicts: Iterable[Verdict], registry: Registry) -> list[dict[str, Any]]:
    """The verdicts as plain rows, one an objective, ready for a table or for JSON."""
    return [
        {
            "id": verdict.objective.id,
            **attrs.asdict(verdict.objective),
            "legal": isinstance(verdict, Legal),
            "reason": verdict.reason if isinstance(verdict, Illegal) else "",
            "needs": list(verdict.needs) if isinstance(verdict, Legal) else [],
            "named": list(registry.named.get(verdict.objective.id, ())),
        }
        for verdict in verdicts
    ]


def sources_of(space: Space) -> tuple[str, ...]:
    """The data sources that a space uses, each once, in its order."""
    return tuple(dict.fromkeys(name for block in space.blocks for name in block.data))


def _check_required(space: Space, missing: Mapping[str, str], registry: Registry) -> None:
    there = set(sources_of(space)) - set(missing)
    others = [
        name for name, entry in registry.spaces.items() if set(sources_of(entry.record)) <= there
    ]
    named = f", such as {', '.join(sorted(others))}" if others else ""
    faults = [
        f"space {space.name!r} needs the data source {name!r}. {missing[name]}; or take a space without it{named} "
        "(see `aang list-spaces`)"
        for name in sources_of(space)
        if name in missing and name not in space.optional
    ]
    if faults:
        raise TaskError(one_message(faults, f"space {space.name!r}"))


def _lacking(primitive: Primitive, capability: str, objective: Objective) -> str:
    stage, _, setting = capability.partition(":")
    if stage == "run":
        return f"{primitive.name} needs {capability}; give --{setting}"
    who = _owner(capability, objective)
    return f"{primitive.name} needs {capability}; {who} does not provide it"


def _conflict(
    primitive: Primitive, capability: str, owned: Mapping[str, Capabilities], objective: Objective
) -> str:
    stages: Sequence[str] = [
        stage for stage, capabilities in owned.items() if capability in capabilities
    ]
    who = " and ".join(_owner(f"{stage}:", objective) for stage in stages)
    verb = "provides" if len(stages) == 1 else "provide"
    return f"{primitive.name} conflicts with {capability}; {who} {verb} it"


def _owner(capability: str, objective: Objective) -> str:
    """Who would provide a capability: the choice at the stage before its colon."""
    stage = capability.partition(":")[0]
    if stage in STAGES:
        return str(getattr(objective, stage))
    return {"backbone": "the encoder", "task": "the task", "run": "the run"}.get(
        stage, "nothing chosen"
    )
