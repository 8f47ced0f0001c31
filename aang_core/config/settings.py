"""Step 1 of 9. In: TOML and flags. Out: a frozen `RunConfig`, checked; every fault is reported at once.

If the paper (Dery et al., ICLR 2023) and its public code disagree, each variant is a named choice here.
`docs/choices.md` says which is the default, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from aang_core.config.fields import RecordOf, section, setting
from aang_core.config.schema import (
    Anything,
    Choice,
    Flag,
    Integer,
    ListOf,
    Number,
    Scalar,
    TableOf,
    Text,
    checked,
)

AUTO = "auto"
UNLABELLED = ("none", "empty")
LAYERS = ("all", "every-2", "every-3", "last-1", "last-2", "last-3")
METHODS = ("aang", "tartan", "static", "finetune", "pretrain-finetune", "probe")
META_METHODS = ("aang", "tartan")
"""The methods that compare gradients with dev's, and may learn weights; the others compute no dev gradient."""
WITHOUT_OBJECTIVES = ("finetune", "probe")
"""The methods that read the labelled rows alone."""


Suggest = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""What a configuration is to begin with → defaults for what it leaves out."""


@attrs.frozen(kw_only=True)
class Training:
    """Rows, learning rates and stopping, shared by every method.

    :param end_task_rows: end-task rows of each step.
    :param auxiliary_rows: auxiliary rows of each step, shared among the sampled objectives; 0, ``proportional`` in the
        file: so many that the rows of further tasks are read as often as the end-task's.
    :param row_budget: how ``finetune`` uses the budget of auxiliary rows: ``none``, or ``end-task`` (equal tokens).
    :param max_length: longest row, in positions; longer ones are cut.
    :param max_steps: upper bound on optimiser steps.
    :param eval_every: steps between evaluations on dev.
    :param patience: evaluations without improvement before stopping.
    :param lr, head_lr: highest learning rate of pretrained parameters (the encoder, a pretrained pooler), and of new
        parameters of the heads.
    :param beta1, beta2: AdamW's running means.
    :param weight_decay, head_weight_decay: AdamW's, of the same two; vectors have none.
    :param warmup: share of `max_steps` for linear warm-up; then linear decay to 0.
    :param clip: global gradient norm, 0 for none.
    :param fit_heads_steps: steps in which new auxiliary heads are fitted first, encoder frozen.
    :param final_epochs: epochs of end-task fine-tuning of the best checkpoint at `final_lr`.
    :param final_lr, final_patience: their learning rate, and epochs without improvement before they stop.
    :param refit: ``all``: after the search train once more, on train and dev, as long as dev did not get worse and with
        the weights as they ended; ``none`` keeps the model that dev chose.
    :param micro_batch_tokens: most positions in one forward pass; 0 for no bound.
    :param precision: ``fp32``, ``bf16`` (autocast in training and in evaluations on dev; alignments and weights stay
        in fp32, and so do test scores and the exported model), or ``auto``: bf16 where the device has units for it.
    :param teacher_precision: the same, of the slow copy's passes as a teacher, which carry no gradient.
    :param pretrain_steps: steps on the auxiliary objectives alone that ``pretrain-finetune`` begins with.
    :param activation_checkpointing: recompute activations in the backward pass: less memory, a third more time.
    :param frozen_layers: embeddings and this many of the encoder's lowest layers do not train; 0 freezes nothing.
    :param lora_rank: train low-rank adapters of this rank in place of the encoder's weights; 0 for none.
    :param pooling: what the end-task's head reads of a row: ``default``, as the encoder's family does (mostly its first
        position), the ``mean`` of its positions, or ``auto``: the mean where the checkpoint was trained to be read so.
    :param class_weights: ``none``, or ``balanced``: end-task losses by inverse class frequency.
    :param class_draws: ``none``, or ``balanced``: a step's labelled rows come from all classes equally often (tasks
        with one label a row).
    :param epochs: passes over the end-task's labelled rows, in place of `max_steps`; 0 for none.
    :param task_weights: the weights that training begins with: ``equal``, or ``size``: by the texts of each objective's
        data source, and λ by the end-task's rows (`proportions.sized_state`).
    :param mean_decay: how slow the slow copy of the model is: its parameters are a running mean, in which each step
        counts 1 − decay. It teaches where an objective asks for a teacher.
    :param mean_evaluation: whether dev also judges the slow copy: ``off``, ``best`` (the better of both is kept, at the
        cost of a second evaluation) or ``only``.
    """

    end_task_rows: int = setting(Integer(1), 32)
    auxiliary_rows: int = setting(Integer(0, word="proportional"), 64)
    row_budget: str = setting(Choice(("none", "end-task")), "none")
    max_length: int = setting(Integer(2), 128)
    max_steps: int = setting(Integer(1), 200)
    eval_every: int = setting(Integer(1), 20)
    patience: int = setting(Integer(1), 20)
    lr: float = setting(Number(0, without_least=True), 1e-4)
    head_lr: float = setting(Number(0, without_least=True), 1e-3)
    beta1: float = setting(Number(0, most=1.0, without_most=True), 0.9)
    beta2: float = setting(Number(0, most=1.0, without_most=True), 0.98)
    weight_decay: float = setting(Number(0), 0.01)
    head_weight_decay: float = setting(Number(0), 0.1)
    warmup: float = setting(Number(0, most=1.0), 0.06)
    clip: float = setting(Number(0), 1.0)
    fit_heads_steps: int = setting(Integer(0), 0)
    final_epochs: int = setting(Integer(0), 10)
    final_lr: float = setting(Number(0, without_least=True), 1e-6)
    final_patience: int = setting(Integer(1), 3)
    refit: str = setting(Choice(("none", "all")), "none")
    micro_batch_tokens: int = setting(Integer(0), 0)
    precision: str = setting(Choice(("fp32", "bf16", "auto")), "fp32")
    teacher_precision: str = setting(Choice(("fp32", "bf16", "auto")), "auto")
    pretrain_steps: int = setting(Integer(1), 100)
    activation_checkpointing: bool = setting(Flag(), False)
    frozen_layers: int = setting(Integer(0), 0)
    lora_rank: int = setting(Integer(0), 0)
    pooling: str = setting(Choice(("auto", "default", "mean")), "auto")
    class_weights: str = setting(Choice(("none", "balanced")), "none")
    class_draws: str = setting(Choice(("none", "balanced")), "none")
    epochs: int = setting(Integer(0), 0)
    task_weights: str = setting(Choice(("equal", "size")), "equal")
    mean_decay: float = setting(Number(0, most=1.0, without_most=True), 0.98)
    mean_evaluation: str = setting(Choice(("off", "best", "only")), "off")


@attrs.frozen(kw_only=True)
class Meta:
    """The search: which objectives a step holds, and how their weights learn.

    :param objectives_per_step: a number, or 0 for all legal objectives in every step.
    :param factored: one logit per primitive beside the one per objective (``tartan`` switches it off).
    :param rule: the rule by which weights learn (`aang list-weightings`); ``auto``: equal weights with the method
        ``aang``, Algorithm 1 with ``tartan``.
    :param control: ``shuffled``: what the rule learns of an objective moves the weight of another one, through one
        permutation a seed (`rules.Shuffled`); ``none`` for a run that means what it learns.
    :param alignment: ``cosine`` (public code) or ``dot`` (paper, eq. 5).
    :param alignment_layers: alignments and gradient norms over ``all`` of the encoder's layers, ``every-N``: every Nth
        from the first (the embeddings) on and the last, or the ``last-N``.
    :param logit_step: ``direct`` (public code), ``softmax`` (through the Jacobian of w) or ``exponentiated``.
    :param factor_reduce: ``mean`` or ``sum`` over the objectives that share a primitive.
    :param factor_lr, end_task_lr: learning rate of the logits of objectives and primitives, and of those of λ.
    :param row_shares: ``weight`` (at least `min_rows` each, c_k = (1 − λ) w_k), ``equal``, ``systematic`` (rows
        sampled from w, c_k from the rows), or ``auto``: by weight where there are rows enough, else systematic.
    :param update_every: steps between updates of the weights, by the mean over the window.
    :param dev_gradient_every: steps between fresh dev gradients.
    :param dev_gradient_decay: running mean of the dev gradient; 0 keeps only the newest.
    :param dev_rows: dev examples of one dev gradient.
    :param dev_folds: cross-fitting: the labelled training rows are cut into so many folds, and each dev gradient comes
        from one that its steps do not train on, so that dev only stops training; 0 takes dev gradients from dev.
    :param dev_head_rows, dev_head_steps, dev_head_lr, dev_head_weight_decay: fitting of the dev head.
    :param dev_head_start: what its fitting begins with: a ``fresh`` head (paper), or a copy of the ``end-task``'s.
    :param dev_head_split: ``train`` (paper's code) or ``dev`` (other examples than the gradient's).
    :param hold_back: share of dev that the meta-gradient never sees, and that alone stops training; 0 for none.
    :param balance: scale each objective by the running ratio of gradient norms, ‖g_e‖ / ‖g_k‖.
    :param engine: ``fused`` or ``looped``.
    """

    objectives_per_step: int = setting(Integer(0, word="all"), 0)
    factored: bool = setting(Flag(), True)
    rule: str = setting(Text(), AUTO)
    control: str = setting(Choice(("none", "shuffled")), "none")
    alignment: str = setting(Choice(("cosine", "dot")), "cosine")
    alignment_layers: str = setting(Choice(LAYERS), "every-3")
    logit_step: str = setting(Choice(("direct", "softmax", "exponentiated")), "direct")
    factor_reduce: str = setting(Choice(("mean", "sum")), "mean")
    factor_lr: float = setting(Number(0), 1.0)
    end_task_lr: float = setting(Number(0), 0.1)
    row_shares: str = setting(Choice(("auto", "weight", "equal", "systematic")), "auto")
    update_every: int = setting(Integer(1), 1)
    dev_gradient_every: int = setting(Integer(1), 2)
    dev_gradient_decay: float = setting(Number(0, most=1.0, without_most=True), 0.0)
    dev_rows: int = setting(Integer(1), 32)
    dev_folds: int = setting(Integer(0), 0)
    dev_head_rows: int = setting(Integer(1), 32)
    dev_head_start: str = setting(Choice(("end-task", "fresh")), "end-task")
    dev_head_steps: int = setting(Integer(0), 0)
    dev_head_lr: float = setting(Number(0, without_least=True), 1e-2)
    dev_head_weight_decay: float = setting(Number(0), 0.1)
    dev_head_split: str = setting(Choice(("train", "dev")), "train")
    hold_back: float = setting(Number(0, most=1.0, without_most=True), 0.0)
    balance: bool = setting(Flag(), True)
    engine: str = setting(Choice(("fused", "looped")), "fused")


@attrs.frozen(kw_only=True)
class HeadSettings:
    """:param policy: ``per-objective`` or ``per-output`` (objectives with the same output share a head).
    :param decoder: ``tied`` to the encoder's embeddings, or ``untied`` copies (paper).
    :param start: what the end-task's last layer begins with: ``fresh`` values, a linear ``probe`` on the encoder's
        features, or a ``tempered-probe``, which is no surer of the labelled rows than of others.
    :param finish: ``probe``: fit a probe on the trained features and keep it if dev improves; ``always``: keep it in
        any case; ``none``: fit nothing.
    """

    policy: str = setting(Choice(("per-objective", "per-output")), "per-output")
    decoder: str = setting(Choice(("tied", "untied")), "tied")
    start: str = setting(Choice(("fresh", "probe", "tempered-probe")), "fresh")
    finish: str = setting(Choice(("none", "probe", "always")), "none")


_OPTIONS = TableOf(TableOf(Anything()))  # `registry.options` checks what is inside


@attrs.frozen
class Shares(Scalar):
    """Nothing, or `count` parts of a whole: numbers above 0 whose sum is below 1."""

    count: int

    @property
    def wanted(self) -> str:
        return f"empty, or {self.count} numbers above 0 with a sum below 1"

    def holds(self, value: Any) -> bool:
        if not isinstance(value, (list, tuple)) or len(value) not in (0, self.count):
            return False
        return all(map(Number(0, 1, True, True).holds, value)) and sum(value) < 1

    def convert(self, value: Any) -> Any:
        return tuple(value)


@attrs.frozen(kw_only=True)
class RunConfig:
    """Everything that a run depends on. Written whole to ``config.toml``.

    :param task: a folder, a ``task.toml``, a data file, ``hf:NAME`` or a registered name.
    :param model: a hub id or folder, ``bundled:minilm`` or ``scratch:tiny``; empty for the task's usual one.
    :param space: a registered name or a TOML file of blocks.
    :param with_: primitives added to their stage in every block (``with`` in TOML).
    :param method: ``aang`` (measures alignments with dev, and may learn weights from them), ``tartan`` (learns them,
        without factors), ``static`` (measures nothing), ``finetune``, ``pretrain-finetune``, or ``probe`` (a linear
        last layer on the encoder as it comes).
    :param seeds: the whole run is done once with each.
    :param train_rows: labelled training rows that are kept, drawn anew for each seed; 0 for all.
    :param dev_rows: labelled dev rows that are kept, drawn anew for each seed; 0 for all. The others are not used.
    :param unlabelled_rows: training texts without a label that are kept, drawn anew for each seed; 0 for all.
    :param split_anew: pool the task's labelled rows without repeats and split them anew for each seed: the shares of
        dev and test; empty for the task's own splits.
    :param drop_empty: leave out rows with an empty text or label, and say how many, instead of refusing the task.
    :param columns: for each role (``text``, ``text_pair``, ``label``) the task's column that plays it, if its name is
        another one.
    :param unlabelled: training rows with an empty label: faults (``none``), or texts without a label to train on
        (``empty``).
    :param external: corpora by data source, in place of the task's own.
    :param aux_tasks: further labelled tasks; each is the data source ``aux:NAME``.
    :param selection: a directory that ``aang select`` has written; its best examples are further tasks to train on.
        The settings of the space that is for selections are then the default.
    :param top: N, how many examples of the selection; 0 where there is none.
    :param teacher_model: a fine-tuned classifier of the task's classes, for objectives that learn from one: a folder, a
        hub id, or a finished run, whose best seed on dev answers; empty for none.
    :param weights: a finished run, or a file of exported weights, to begin with: kept, unless a rule learns; empty for
        equal weights.
    :param guard: also fine-tune plainly at equal tokens, and keep that model if it is better on dev.
    :param log: loggers that receive the history beside ``history.jsonl``, such as ``tensorboard``.
    :param callbacks: plugins' callbacks, which follow every training and may end it; each process of a run loads them.
    :param plugins: allow-list; empty for all that are installed.
    :param device: ``cpu``, ``cuda`` or ``auto``.
    :param primitives: options of primitives by name.
    :param backbones: options of kinds of encoders by name; what a kind takes, its record says.
    :param loggers: options of loggers by name.
    :param weightings: options of weighting rules by name.
    :param callback_options: options of callbacks by name.
    """

    task: str = setting(Text(), "sample")
    model: str = setting(Text(empty=True), "")
    space: str = setting(Text(), "td+ed")
    with_: tuple[str, ...] = setting(ListOf(Text()), ())
    method: str = setting(Choice(METHODS), "aang")
    seeds: tuple[int, ...] = setting(ListOf(Integer(0), 1, "seed"), (0,))
    train_rows: int = setting(Integer(0), 0)
    dev_rows: int = setting(Integer(0), 0)
    unlabelled_rows: int = setting(Integer(0), 0)
    split_anew: tuple[float, ...] = setting(Shares(2), ())
    drop_empty: bool = setting(Flag(), False)
    columns: Mapping[str, str] = setting(TableOf(Text()), {})
    unlabelled: str = setting(Choice(UNLABELLED), "none")
    external: Mapping[str, str] = setting(TableOf(Text()), {})
    aux_tasks: tuple[str, ...] = setting(ListOf(Text()), ())
    selection: str = setting(Text(empty=True), "")
    top: int = setting(Integer(0), 0)
    teacher_model: str = setting(Text(empty=True), "")
    weights: str = setting(Text(empty=True), "")
    guard: bool = setting(Flag(), False)
    log: tuple[str, ...] = setting(ListOf(Text()), ())
    callbacks: tuple[str, ...] = setting(ListOf(Text()), ())
    plugins: tuple[str, ...] = setting(ListOf(Text()), ())
    device: str = setting(Text(), "auto")
    training: Training = section(Training)
    meta: Meta = section(Meta)
    heads: HeadSettings = section(HeadSettings)
    primitives: Mapping[str, Mapping[str, Any]] = setting(_OPTIONS, {})
    backbones: Mapping[str, Mapping[str, Any]] = setting(_OPTIONS, {})
    loggers: Mapping[str, Mapping[str, Any]] = setting(_OPTIONS, {})
    weightings: Mapping[str, Mapping[str, Any]] = setting(_OPTIONS, {})
    callback_options: Mapping[str, Mapping[str, Any]] = setting(_OPTIONS, {})

    @property
    def capabilities(self) -> frozenset[str]:
        """What primitives may require of a run: ``run:teacher-model``, where it names one."""
        return frozenset({"run:teacher-model"} if self.teacher_model else ())

    @classmethod
    def from_mapping(
        cls,
        raw: Mapping[str, Any],
        origins: Mapping[str, str] | None = None,
        suggest: Suggest | None = None,
    ) -> RunConfig:
        """A configuration from plain values, as TOML, flags or Python keywords give them.

        :param raw: settings by key; ``training``, ``meta`` and ``heads`` are tables. What is left out has its default.
        :param origins: dotted key → where it was set (``run.toml:12``, ``--max-steps``), for messages.
        :param suggest: what else is the default where `raw` says nothing (`registry.spaces.suggestions`).
        :raises ConfigError: names every unknown key and every value that breaks its rule, each with its origin.
        """
        if suggest is not None:
            raw = laid_over(suggest(raw), raw)
        config: RunConfig = checked(RecordOf(cls), raw, origins, what="the configuration")
        return config


SECTIONS: Mapping[str, type] = {"training": Training, "meta": Meta, "heads": HeadSettings}

OPTION_TABLES: Mapping[str, str] = {
    "primitives": "primitives",
    "backbones": "backbones",
    "loggers": "loggers",
    "weightings": "weightings",
    "callback_options": "callbacks",
}
"""The tables ``[TABLE.NAME]`` with options of what plugins bring → the registry's index of these."""


def laid_over(base: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` over `base`, tables entry by entry, and tables in them likewise."""
    merged = {**base, **raw}
    for key, table in base.items():
        if isinstance(table, Mapping) and isinstance(raw.get(key), Mapping):
            merged[key] = laid_over(table, raw[key])
    return merged
