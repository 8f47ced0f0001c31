"""Steps 1 to 4 joined: a configuration becomes a task, an encoder and bound objectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.batch.binding import bind_sources
from aang_core.batch.checks import errors_of
from aang_core.batch.packing import BoundObjective
from aang_core.batch.protocols import Backbone, BackboneSettings, Binding, BoundSource, no_op
from aang_core.config.settings import WITHOUT_OBJECTIVES, RunConfig
from aang_core.data.auxiliary import (
    check_selection,
    expanded,
    joined_to,
    load_auxiliary,
    load_selected,
    with_sources,
)
from aang_core.data.splits import (
    draw_dev_rows,
    draw_train_rows,
    draw_unlabelled_rows,
    split_anew,
    without_split_remark,
)
from aang_core.data.task import Task, check_given, load_task, registered_tasks
from aang_core.errors import ConfigError, RunError, TaskError
from aang_core.method.weights.chosen import chosen_weighting
from aang_core.method.weights.proportions import proportioned
from aang_core.registry.legality import (
    Illegal,
    Legal,
    Objective,
    Verdict,
    enumerate_objectives,
    judge,
    legal_objectives,
    sources_of,
)
from aang_core.registry.options import check_corpora, check_options, settings_of
from aang_core.registry.records import (
    STAGES,
    BackboneKind,
    Block,
    Primitive,
    Space,
    Weighting,
    load_factory,
)
from aang_core.registry.registry import Registered, Registry
from aang_core.registry.spaces import resolve_space
from aang_core.rundir.finished import model_named
from aang_core.train.callbacks import check_callbacks
from aang_core.train.session import check_dev_rows, check_folds


@attrs.frozen(eq=False, kw_only=True)
class ResolvedRun:
    """What all seeds of a run share.

    :param model: the encoder's name, resolved.
    :param space: None for a method without auxiliary objectives.
    :param weighting: the rule by which weights learn; None for that of the method (`rules.make_rule`).
    :param teacher_model: a hub id, or the folder of the model; empty for none.
    :param auxiliary: the further tasks.
    """

    config: RunConfig
    registry: Registry
    task: Task
    kind: BackboneKind
    model: str
    space: Space | None
    weighting: Registered[Weighting] | None = None
    teacher_model: str = ""
    auxiliary: Mapping[str, Task] = attrs.field(factory=dict)


def resolve(config: RunConfig, registry: Registry, given: Task | None = None) -> ResolvedRun:
    """Find and read everything that a configuration names; loads no encoder.

    :param given: the task itself, where `config` names one in memory (`spec.MEMORY`).
    :raises AangError: for unknown names, a malformed task or bad options.
    """
    model = config.model or registry.usual_model(config.task)
    kind = registry.backbone_for(model)
    check_selection(config)
    if config.selection:
        auxiliary = load_selected(config, kind.reads, registry)
    else:
        auxiliary = load_auxiliary(config.aux_tasks, kind.reads, registry, config.drop_empty)
    registry = with_sources(registry, auxiliary)
    space = _space(config, registry, auxiliary)
    check_options(config, registry)
    check_callbacks(config.callbacks, registry)
    check_corpora(config.external, registry)
    teacher_model = _teacher_model(config, registry, space)
    task = load_task(
        config.task,
        reads=kind.reads,
        registered=_tasks(config, registry, kind, given),
        external=config.external,
        drop_empty=config.drop_empty,
        columns=config.columns,
        unlabelled=config.unlabelled,
    )
    task = joined_to(without_split_remark(task) if config.split_anew else task, auxiliary)
    _check_draws(config, task)
    resolved = ResolvedRun(
        config=config,
        registry=registry,
        task=task,
        kind=kind,
        model=model,
        space=space,
        weighting=chosen_weighting(config, registry),
        teacher_model=teacher_model,
        auxiliary=auxiliary,
    )
    return _with_rows(resolved)


def resolved_as(resolved: ResolvedRun, config: RunConfig) -> ResolvedRun:
    """The same task and encoder under another configuration, which names the same ones, and the same seeds.

    :raises ConfigError: for unknown names, bad options, or rows that do not suffice.
    """
    check_options(config, resolved.registry)
    space = _space(config, resolved.registry, resolved.auxiliary)
    changed = attrs.evolve(
        resolved,
        config=config,
        space=space,
        weighting=chosen_weighting(config, resolved.registry),
        teacher_model=_teacher_model(config, resolved.registry, space),
    )
    return _with_rows(changed)


def _with_rows(resolved: ResolvedRun) -> ResolvedRun:
    """The run with numbers in place of passes and proportions, once every seed's rows are known to suffice."""
    config = resolved.config
    for seed in config.seeds:
        splits = seed_task(resolved, seed).splits
        check_dev_rows(config, len(splits["dev"]))
        check_folds(config, len(splits["train"]))
    config = proportioned(config, len(splits["train"]), resolved.auxiliary)
    return attrs.evolve(resolved, config=config)


def _tasks(
    config: RunConfig, registry: Registry, kind: BackboneKind, given: Task | None
) -> dict[str, Callable[[], Task]]:
    """The registered tasks, and the one that is given, checked."""
    found = registered_tasks(registry)
    if given is not None:
        check_given(given, kind.reads)
        found[config.task] = lambda: given
    return found


def _check_draws(config: RunConfig, task: Task) -> None:
    """:raises ConfigError: where classes are to be drawn equally often, and a row has not one class."""
    if config.training.class_draws == "balanced" and task.kind != "class":
        other = "" if task.kind == "regression" else "; training.class_weights = 'balanced' works"
        raise ConfigError(
            f"training.class_draws = 'balanced' draws rows by their one class, and task {task.name!r} is of the kind "
            f"{task.kind!r}; set it to 'none'{other}"
        )


def _space(config: RunConfig, registry: Registry, auxiliary: Mapping[str, Task]) -> Space | None:
    """The space with the further tasks in it; methods without objectives have none."""
    if config.method in WITHOUT_OBJECTIVES:
        return None
    return expanded(resolve_space(config.space, registry, config.with_), registry, auxiliary)


def _teacher_model(config: RunConfig, registry: Registry, space: Space | None) -> str:
    """The model that a run's objectives may learn from: a hub id, or a folder.

    :raises ConfigError: where there is no such folder or run, or nothing in the space asks for one.
    """
    if not config.teacher_model:
        return ""
    names = {n for b in space.blocks for stage in STAGES for n in b.names(stage)} if space else ()
    if space and not any("teacher_model" in registry.primitive(n).options for n in names):
        raise ConfigError(
            f"teacher_model = {config.teacher_model!r}: no objective of the space {space.name!r} learns from a model; "
            "leave it out, or add a primitive that does (`aang list-primitives`; --with PRIMITIVE)"
        )
    try:
        return model_named(config.teacher_model)
    except RunError as cause:
        raise ConfigError(f"teacher_model = {config.teacher_model!r}: {cause}") from cause


def seed_task(resolved: ResolvedRun, seed: int) -> Task:
    """The task with this seed's splits, labelled rows and texts without a label."""
    task, config = resolved.task, resolved.config
    if config.split_anew:
        dev, test = config.split_anew
        task = split_anew(task, dev, test, seed)
    task = draw_dev_rows(draw_train_rows(task, config.train_rows, seed), config.dev_rows, seed)
    return draw_unlabelled_rows(task, config.unlabelled_rows, seed)


def load_backbone(resolved: ResolvedRun, seed: int) -> Backbone:
    """The encoder, in the state of its checkpoint."""
    training = resolved.config.training
    settings = BackboneSettings(
        max_length=training.max_length,
        device=resolved.config.device,
        seed=seed,
        checkpointing=training.activation_checkpointing,
        frozen_layers=training.frozen_layers,
        lora_rank=training.lora_rank,
        pooling=training.pooling,
        options=settings_of(resolved.kind, resolved.config.backbones),
    )
    backbone: Backbone = load_factory(resolved.kind.factory)(resolved.model, settings)
    return backbone


def verdicts_of(
    resolved: ResolvedRun,
    task: Task,
    bound: Mapping[str, BoundSource],
    missing: Mapping[str, str],
    backbone: Backbone,
) -> Sequence[Verdict]:
    """Which objectives are legal with this data and this encoder."""
    if resolved.space is None:
        return ()
    return enumerate_objectives(
        resolved.space,
        resolved.registry,
        provided={name: source.provides for name, source in bound.items()},
        unavailable=missing,
        backbone_capabilities=backbone.capabilities,
        task_capabilities=task.capabilities,
        run_capabilities=resolved.config.capabilities,
    )


def bind_objectives(
    resolved: ResolvedRun,
    task: Task,
    backbone: Backbone,
    seed: int,
    cache: Path | None = None,
    remark: Callable[[str], None] = no_op,
    progress: Callable[[str, int, int], None] = no_op,
    rejected: Callable[[Illegal], None] = no_op,
) -> list[BoundObjective]:
    """The legal objectives with their primitives at work; each primitive is made once per data source.

    An objective is illegal as well where a primitive of it answers with a `TaskError` when it is bound: it cannot do
    with this task or data. A remark says how many that leaves out and why.

    :param cache, remark, progress: as in `Binding`; the same remark is passed on once.
    :param rejected: told of each objective that turns out illegal when it is bound.
    :raises ConfigError: where none is legal.
    :raises TaskError: where a data source that the space requires is missing.
    """
    if resolved.space is None:
        return []
    options = _options(resolved)
    base = Binding(
        task=task,
        backbone=backbone,
        options={},
        seed=seed,
        cache=cache,
        remark=_once(remark),
        progress=progress,
    )
    bound, missing = bind_sources(sources_of(resolved.space), resolved.registry, base, options)
    verdicts = verdicts_of(resolved, task, bound, missing, backbone)
    legal_objectives(verdicts, resolved.space)
    primitives = _Primitives(resolved, options, base, bound)
    judged, objectives = primitives.tried(verdicts)
    legal_objectives(judged, resolved.space)
    known = {id(verdict) for verdict in verdicts}
    refused = [v for v in judged if isinstance(v, Illegal) and id(v) not in known]
    for verdict in refused:
        rejected(verdict)
    for reason, count in Counter(verdict.reason for verdict in refused).items():
        which = "1 objective is" if count == 1 else f"{count} objectives are"
        base.remark(f"{which} illegal with this task and left out: {reason}")
    return objectives


def bind_one(
    config: RunConfig,
    objective: str,
    registry: Registry,
    backbone: Backbone | None = None,
    progress: Callable[[str, int, int], None] = no_op,
) -> tuple[BoundObjective, Backbone]:
    """One objective at work on the task and encoder of a configuration.

    :param objective: ``data/transform/representation/output``, or a name that the literature has for one.
    :param backbone: the configuration's encoder where it is loaded already.
    :param progress: as in `Binding`; some data sources have to be made first, which takes minutes.
    :raises ConfigError: where it is unknown or illegal.
    :raises AangError: where its task, data or encoder cannot be had.
    """
    resolved, seed = resolve(attrs.evolve(config, method="finetune"), registry), config.seeds[0]
    task = seed_task(resolved, seed)
    chosen = Objective.parse(resolved.registry.objective_named(objective), resolved.registry)
    verdict = judge(
        chosen,
        resolved.registry,
        backbone_capabilities=resolved.kind.capabilities,
        task_capabilities=task.capabilities,
        run_capabilities=config.capabilities,
    )
    if isinstance(verdict, Illegal):
        raise ConfigError(f"{chosen.id} is not legal: {verdict.reason}")
    block = Block(**{stage: (name,) for stage, name in attrs.asdict(chosen).items()})
    space = Space(name="one-objective", summary=chosen.id, blocks=(block,))
    resolved = attrs.evolve(resolved, space=space)
    backbone = backbone or load_backbone(resolved, seed)
    (bound,) = bind_objectives(resolved, task, backbone, seed, progress=progress)
    return bound, backbone


class _Primitives:
    """Primitives at work, each made once per data source, when first needed."""

    def __init__(
        self,
        resolved: ResolvedRun,
        options: Mapping[str, Mapping[str, Any]],
        base: Binding,
        bound: Mapping[str, BoundSource],
    ) -> None:
        self.resolved, self.options, self.base, self.bound = resolved, options, base, bound
        self._made: dict[tuple[str, str], Any] = {}
        self._failed: dict[tuple[str, str], str] = {}

    def one(self, name: str, source: str) -> Any:
        """One primitive, bound to one source.

        :raises TaskError: where it cannot do with the task or the source's data.
        """
        if (name, source) in self._failed:
            raise TaskError(self._failed[name, source])
        if (name, source) not in self._made:
            record = self.resolved.registry.primitive(name)
            settings = settings_of(record, self.options)
            binding = attrs.evolve(self.base, options=settings, source=self.bound[source])
            try:
                with errors_of(self.resolved.registry.maker(name), "its factory"):
                    self._made[name, source] = load_factory(record.factory)(binding)
            except TaskError as cause:
                self._failed[name, source] = str(cause)
                raise
        return self._made[name, source]

    def tried(self, verdicts: Sequence[Verdict]) -> tuple[list[Verdict], list[BoundObjective]]:
        """The legal objectives at work, and the verdicts: illegal now where a primitive answered with a `TaskError`."""
        judged, objectives = list(verdicts), []
        for i, verdict in enumerate(verdicts):
            if isinstance(verdict, Legal):
                try:
                    objectives.append(self.of(verdict.objective))
                except TaskError as cause:
                    judged[i] = Illegal(verdict.objective, str(cause))
        return judged, objectives

    def of(self, objective: Objective) -> BoundObjective:
        """An objective with its four primitives."""
        source = objective.data
        return BoundObjective(
            id=objective.id,
            source=self.bound[source],
            transform=self.one(objective.transform, source),
            representation=self.one(objective.representation, source),
            output=self.one(objective.output, source),
            makers={n: self.resolved.registry.maker(p) for n, p in attrs.asdict(objective).items()},
        )


def _once(remark: Callable[[str], None]) -> Callable[[str], None]:
    """Passes each text on once, because several primitives may report the same."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            remark(text)

    return say


def _options(resolved: ResolvedRun) -> dict[str, dict[str, Any]]:
    """Of primitives; ``decoder``, ``class_weights`` and ``teacher_model`` reach all that have such an option."""
    config = resolved.config
    options = {name: dict(given) for name, given in config.primitives.items()}
    shared = {
        "decoder": config.heads.decoder,
        "class_weights": config.training.class_weights,
        "teacher_model": resolved.teacher_model,
    }
    for name, entry in resolved.registry.primitives.items():
        record: Primitive = entry.record
        for option, value in shared.items():
            if option in record.options:
                options.setdefault(name, {}).setdefault(option, value)
    return options
