"""The training session of one seed: everything that the steps read, and the few things that they change."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from aang_core.batch.packing import BoundObjective
from aang_core.batch.protocols import Backbone, Binding
from aang_core.batch.rows import Origin, Row, lay_on_words
from aang_core.batch.stream import FusedBatch
from aang_core.config.settings import META_METHODS, RunConfig
from aang_core.data.task import Task
from aang_core.errors import ConfigError, RunError
from aang_core.files import load_tensors
from aang_core.method.cross_fitting import Folds
from aang_core.method.end_task import EndTask, LabelledRows
from aang_core.method.gradient.dev_gradient import DevGradient
from aang_core.method.gradient.engine import Engine
from aang_core.method.gradient.metagrad import Gradient, Model
from aang_core.method.gradient.row_gradients import tables_of
from aang_core.method.heads import ObjectiveHeads
from aang_core.method.precision import precision_on
from aang_core.method.refresh import Refresher, refreshes
from aang_core.method.slow_copy import SlowCopy
from aang_core.method.step_plan import Planner, StepPlan
from aang_core.method.teacher import Lesson, Teacher, asks
from aang_core.method.weights.proportions import sized_state
from aang_core.method.weights.rules import Direction, Rule, begun, direction_of, make_rule
from aang_core.method.weights.weighting import Factors, WeightState
from aang_core.processes import Processes
from aang_core.randomness import generator, seeded
from aang_core.registry.options import settings_of
from aang_core.registry.records import Weighting
from aang_core.registry.registry import Registered
from aang_core.rundir.recipe import starting_state
from aang_core.train.evaluation import predict
from aang_core.train.fork.rounds import Fork
from aang_core.train.optimizer import RowAdamW, optimizer_for


@attrs.define(eq=False, kw_only=True)
class Session:
    """What a run of one seed consists of. Steps replace `weights`, `planned` and `dev_gradient`, a phase `optimizer`.

    :param config: the run's, as its method resolves it (``tartan`` has no factors).
    :param task: with this seed's splits.
    :param parameters: what trains, of encoder and heads, by name.
    :param pretrained: the names of those of the heads that a checkpoint brought.
    :param dev, rule: where dev gradients come from (or what the rule has in their place), and how weights learn from
        them; None for a method without.
    :param stopping: dev rows that choose the checkpoint.
    :param test: none where the task has no test split.
    :param planned: the weights that the coming step was planned with (one step older than `weights`, because its
        batch is prepared while the step before it runs).
    :param dev_gradient: the newest V, or None.
    :param slow: the running mean of what trains, where anything asks for it.
    :param teacher: what answers outputs that ask; None where none does.
    :param refresher: what lets data sources look at the model; None where none does.
    :param fork: the rounds of a training whose rule forks; None for any other.
    """

    config: RunConfig
    seed: int
    task: Task
    model: Model
    engine: Engine
    end_task: EndTask
    planner: Planner
    parameters: Mapping[str, nn.Parameter]
    pretrained: frozenset[str]
    optimizer: RowAdamW = attrs.Factory(lambda s: s.new_optimizer(), takes_self=True)
    dev: Direction | None
    rule: Rule | None
    stopping: Sequence[Row]
    test: Sequence[Row]
    processes: Processes
    weights: WeightState
    planned: WeightState = attrs.Factory(lambda self: self.weights, takes_self=True)
    slow: SlowCopy | None = None
    teacher: Teacher | None = None
    refresher: Refresher | None = None
    fork: Fork | None = None
    dev_gradient: Gradient | None = None

    @property
    def factors(self) -> Factors:
        """How the objectives share primitives."""
        return self.planner.factors

    @property
    def device(self) -> torch.device:
        """Where the encoder lives."""
        return self.engine.device

    @property
    def end_task_head(self) -> nn.Module:
        """The head that is exported."""
        return self.model.heads.head(0)

    @property
    def peak_memory_mib(self) -> float:
        """The process's greatest resident memory so far, or on CUDA the seed's greatest allocation on the device."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere (getrusage(2))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

    @property
    def trained_tensors(self) -> dict[str, Tensor]:
        """Everything of the model that training changes, by name: parameters that train, and all buffers."""
        return {**self.parameters, **named_buffers(self.model.backbone.body, self.model.heads)}

    @property
    def head_parameters(self) -> dict[str, list[str]]:
        """The heads' parameters: ``pretrained`` train at the encoder's rate, ``new`` at the heads'."""
        names = [name for name in self.parameters if name.startswith("heads.")]
        return {
            "pretrained": [name for name in names if name in self.pretrained],
            "new": [name for name in names if name not in self.pretrained],
        }

    def any_direction(self) -> Gradient:
        """Some direction, where any will do: for comparing engines, and for timing them."""
        return {name: parameter.detach() for name, parameter in self.model.compared().items()}

    def new_optimizer(self, lr: float = 0.0) -> RowAdamW:
        """A fresh optimiser; `lr` as in `optimizer_for`."""
        tables = [table.weight for table in tables_of(self.model.backbone.body)]
        return optimizer_for(self.parameters, self.pretrained, self.config.training, lr, tables)

    def taught(self, batch: FusedBatch, plan: StepPlan) -> Lesson:
        """A step's batch on the model's device, with the teacher's answers where outputs ask for them."""
        own = batch.to(self.device)
        if self.teacher is None:
            return Lesson(own)
        wanted = self.teacher.asks_labelled([s.objective for s in own.segments])
        labelled = self.planner.labelled_rows(plan) if wanted else ()
        return self.teacher.teach(own, plan.elapsed, labelled)

    def predict(self, rows: Sequence[Row]) -> list[Tensor]:
        """Each row's logits by the end-task's head, as `evaluation.predict` gives them."""
        return predict(self.model.backbone, self.end_task_head, self.task, rows)

    def load(self, path: Path) -> None:
        """Put saved values of `trained_tensors` back.

        :raises RunError: where the file is missing or damaged, or holds others.
        """
        saved, tensors = load_tensors(path), self.trained_tensors
        if saved.keys() != tensors.keys():
            odd = sorted(saved.keys() ^ tensors.keys())
            raise RunError(
                f"{path} does not fit this model: {odd[0]} and {len(odd) - 1} more differ"
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(saved[name])


def named_parameters(body: nn.Module, heads: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter once: a decoder tied to the embeddings goes by the encoder's name."""
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in (("body.", body), ("heads.", heads)):
        for name, parameter in module.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[prefix + name] = parameter
    return found


def named_buffers(body: nn.Module, heads: nn.Module) -> dict[str, Tensor]:
    """Buffers that are saved with the parameters, such as running means of batch normalisation."""
    found: dict[str, Tensor] = {}
    for prefix, module in (("body.", body), ("heads.", heads)):
        saved = module.state_dict(keep_vars=True)
        found |= {prefix + n: buffer for n, buffer in module.named_buffers() if n in saved}
    return found


def forget_peak() -> None:
    """Reset the device's peak memory, so that each seed has its own."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def task_rows(backbone: Backbone, task: Task, split: str) -> list[Row]:
    """A split's rows, cut at the encoder's length; the labels of words lie on the words' first positions."""
    examples = list(task.splits[split])
    origins = [Origin(split, i, 0) for i in range(len(examples))]
    return laid_rows(backbone, task.kind, examples, origins)


def laid_rows(
    backbone: Backbone, kind: str, examples: Sequence[Mapping[str, Any]], origins: Sequence[Origin]
) -> list[Row]:
    """Examples of a task of this kind as the encoder reads them, as `task_rows` of a split."""
    rows = backbone.rows(examples, origins)
    if kind != "token":
        return rows
    return [
        row
        if row.label is None
        else attrs.evolve(row, label=lay_on_words(row.marks["word"], row.label))
        for row in rows
    ]


def build_session(
    config: RunConfig,
    seed: int,
    task: Task,
    backbone: Backbone,
    objectives: Sequence[BoundObjective],
    processes: Processes,
    weighting: Registered[Weighting] | None = None,
) -> Session:
    """Put a session together. From here on training changes the encoder.

    :param weighting: the rule by which weights learn; None for that of the method (`rules.make_rule`).
    """
    config = _without_factors(config) if config.method == "tartan" else config
    end_task, model = _end_task_and_model(config, seed, task, backbone, objectives)
    parameters, pretrained = _trained(model)
    train = task_rows(backbone, task, "train")
    steering, stopping = _split_dev(task_rows(backbone, task, "dev"), config.meta.hold_back, seed)
    factors = Factors.of([objective.id for objective in objectives])
    labelled, folds = _labelled(config, train, seed)
    dev = DevGradient(model, end_task, steering, train, config.meta, seed, folds)
    rule, direction, fork = _learning(config, weighting, seed, factors, dev)
    slow = _slow_copy(config, objectives, model.heads, parameters)
    return Session(
        config=config,
        seed=seed,
        task=task,
        model=model,
        engine=_engine(model, config),
        end_task=end_task,
        planner=Planner(config, seed, objectives, factors, end_task, labelled, folds),
        parameters=parameters,
        pretrained=pretrained,
        dev=direction,
        rule=rule,
        stopping=stopping,
        test=task_rows(backbone, task, "test") if "test" in task.splits else (),
        processes=processes,
        weights=begun(rule, _starting_weights(config, objectives, len(train), factors), factors),
        slow=slow,
        teacher=_teacher(model, task, slow, objectives),
        refresher=_refresher(model, slow, objectives),
        fork=fork,
    )


def _labelled(
    config: RunConfig, train: Sequence[Row], seed: int
) -> tuple[LabelledRows, Folds | None]:
    """The order of the labelled rows, and their folds, where dev gradients come from them."""
    meta, balanced = config.meta, config.training.class_draws == "balanced"
    labelled = LabelledRows(train, seed, balanced=balanced)
    if meta.dev_folds == 0 or config.method not in META_METHODS:
        return labelled, None
    folds = Folds(train, meta.dev_folds, meta.dev_gradient_every, seed, balanced=balanced)
    return labelled, folds


def _learning(
    config: RunConfig,
    weighting: Registered[Weighting] | None,
    seed: int,
    factors: Factors,
    dev: DevGradient,
) -> tuple[Rule | None, Direction | None, Fork | None]:
    """How weights learn, and from what; or the rounds, where the rule forks and learns nothing.

    Dev's rows that steer (all but those that are held back) judge the merges.
    """
    if config.method not in META_METHODS:
        return None, None, None
    rule = make_rule(config, weighting, seed, factors)
    if weighting is None or not weighting.record.forks:
        return rule, direction_of(rule, dev), None
    settings, options = config.training, settings_of(weighting.record, config.weightings)
    rows, most = dev.dev, int(options.get("rows", 0))
    if 0 < most < len(rows):
        order = torch.randperm(len(rows), generator=generator(seed, "fork")).tolist()
        rows = [rows[i] for i in sorted(order[:most])]
    return rule, None, Fork(settings.eval_every, settings.max_steps, options["shares"], rows)


def _without_factors(config: RunConfig) -> RunConfig:
    """What ``tartan`` means: a weight for each objective, and nothing that they share."""
    return attrs.evolve(config, meta=attrs.evolve(config.meta, factored=False))


def _end_task_and_model(
    config: RunConfig,
    seed: int,
    task: Task,
    backbone: Backbone,
    objectives: Sequence[BoundObjective],
) -> tuple[EndTask, Model]:
    """The end-task, and the encoder with new heads, which are the same on every device."""
    settings = {"class_weights": config.training.class_weights}
    end_task = EndTask(Binding(task=task, backbone=backbone, options=settings, seed=seed))
    device = next(backbone.body.parameters()).device
    with seeded(seed, "heads", device=torch.device("cpu")):
        heads = ObjectiveHeads(end_task, objectives, config.heads.policy).to(device)
    return end_task, Model(backbone, heads, config.meta.alignment_layers)


def _engine(model: Model, config: RunConfig) -> Engine:
    device = next(model.backbone.body.parameters()).device
    return Engine(
        model,
        config.meta.engine if model.backbone.packed else "looped",
        config.training.micro_batch_tokens,
        precision_on(device, config.training.precision),
    )


def _trained(model: Model) -> tuple[dict[str, nn.Parameter], frozenset[str]]:
    """What trains of encoder and heads, by name; and the names of those of the heads that a checkpoint brought."""
    named = named_parameters(model.backbone.body, model.heads).items()
    parameters = {name: parameter for name, parameter in named if parameter.requires_grad}
    brought = {f"heads.{name}" for name in model.heads.pretrained}
    return parameters, frozenset(parameters.keys() & brought)


def _teacher(
    model: Model, task: Task, slow: SlowCopy | None, objectives: Sequence[BoundObjective]
) -> Teacher | None:
    """What answers outputs that ask; None where none does."""
    if slow is None or not any(map(asks, objectives)):
        return None
    return Teacher(model, task, slow, objectives)


def _refresher(
    model: Model, slow: SlowCopy | None, objectives: Sequence[BoundObjective]
) -> Refresher | None:
    """What lets data sources look at the model; None where none does."""
    if slow is None or not any(map(refreshes, objectives)):
        return None
    return Refresher(model, slow, objectives)


def _slow_copy(
    config: RunConfig,
    objectives: Sequence[BoundObjective],
    heads: ObjectiveHeads,
    parameters: Mapping[str, nn.Parameter],
) -> SlowCopy | None:
    """The running mean of the encoder and of the end-task's head, where an evaluation, an output or a source asks."""
    asked = any(asks(each) or refreshes(each) for each in objectives)
    if config.training.mean_evaluation == "off" and not asked:
        return None
    head = {id(parameter) for parameter in heads.head(0).parameters()}
    chosen = {n: p for n, p in parameters.items() if n.startswith("body.") or id(p) in head}
    device = next(iter(chosen.values())).device
    precision = precision_on(device, config.training.teacher_precision)
    return SlowCopy(chosen, config.training.mean_decay, precision)


def _starting_weights(
    config: RunConfig, objectives: Sequence[BoundObjective], rows: int, factors: Factors
) -> WeightState:
    """Equal weights, those of a recipe, or by size, with `rows` of the end-task."""
    if config.training.task_weights == "size" and objectives:
        return sized_state(objectives, rows, factors)
    return starting_state(config.weights, factors)


def check_folds(config: RunConfig, rows: int) -> None:
    """Check that the labelled training rows can be cut into folds, and that no other setting undoes it.

    :raises ConfigError: where a fold could be empty, or another setting makes no sense with folds.
    """
    meta, folds = config.meta, config.meta.dev_folds
    if folds == 0 or config.method not in META_METHODS:
        return
    if not 2 <= folds <= rows:
        raise ConfigError(
            f"meta.dev_folds: expected 0, or from 2 folds to as many as there are labelled training rows ({rows}), "
            f"found {folds}"
        )
    for name in ("dev_gradient_decay", "hold_back"):
        if value := getattr(meta, name):
            reason = "mixes the folds" if name == "dev_gradient_decay" else "parts dev, unused here"
            raise ConfigError(
                f"meta.{name} = {value:g} does not go with meta.dev_folds = {folds}: it {reason}; set one to 0"
            )


def check_dev_rows(config: RunConfig, rows: int) -> None:
    """Check that dev has enough rows for the configuration.

    :raises ConfigError: where a part of dev, for stopping, for the meta-gradient or for the dev head, would be empty.
    """
    meta, steering = config.meta, rows - _held(config.meta.hold_back, rows)
    if meta.hold_back and steering == rows:
        raise ConfigError(
            f"meta.hold_back: expected a share that holds back at least one of the {rows} dev rows, found "
            f"{meta.hold_back:g}; raise it to {1 / rows:.3g} or more, or set it to 0"
        )
    if config.method not in META_METHODS:
        return
    if steering == 0:
        raise ConfigError(
            f"meta.hold_back: expected a share that leaves dev rows for the meta-gradient, found {meta.hold_back:g} "
            f"of {rows} rows; lower it to {1 - 1 / rows:.3g} or less, or give more dev rows"
        )
    if meta.dev_head_split == "dev" and meta.dev_head_steps and steering <= meta.dev_rows:
        raise ConfigError(
            f'meta.dev_head_split = "dev": expected more than meta.dev_rows = {meta.dev_rows} dev rows, so that some '
            f"are left to fit the dev head, found {steering}; lower meta.dev_rows, set meta.dev_head_split to "
            '"train", or give more dev rows'
        )


def _held(hold_back: float, rows: int) -> int:
    return round(hold_back * rows)


def _split_dev(
    rows: Sequence[Row], hold_back: float, seed: int
) -> tuple[Sequence[Row], Sequence[Row]]:
    """Rows that steer the search, and rows that choose the checkpoint: all of dev twice, or two parts of it."""
    held = _held(hold_back, len(rows))
    if held == 0:
        return rows, rows
    order = torch.randperm(len(rows), generator=generator(seed, "hold-back")).tolist()
    return [rows[i] for i in sorted(order[held:])], [rows[i] for i in sorted(order[:held])]
