"""Step 1 of 9. In: TOML and flags. Out: a frozen `RunConfig`, checked; every fault is reported at once.

Where the paper (Dery et al., ICLR 2023) and its public code disagree, each way is a named choice here;
`docs/choices.md` says which is the default, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

METHODS = ("aang", "tartan", "static", "finetune", "pretrain-finetune")


@attrs.frozen(kw_only=True)
class Training:
    """Rows, learning rates and stopping, shared by every method.

    :param end_task_rows: end-task rows of each step.
    :param auxiliary_rows: auxiliary rows of each step, shared among the sampled objectives.
    :param row_budget: where the auxiliary rows' budget goes in ``finetune``: ``none``, or ``end-task`` (equal tokens).
    :param max_length: longest row, in positions; longer ones are cut.
    :param max_steps: upper bound on optimiser steps.
    :param eval_every: steps between evaluations on dev.
    :param patience: evaluations without improvement before stopping.
    :param warmup: share of `max_steps` for linear warm-up; then linear decay to 0.
    :param clip: global gradient norm, 0 for none.
    :param fit_heads_steps: steps in which new auxiliary heads are fitted first, encoder frozen.
    :param final_epochs: epochs of end-task fine-tuning of the best checkpoint at `final_lr`.
    :param micro_batch_tokens: most positions in one forward pass; 0 for no bound.
    :param precision: ``fp32`` or ``bf16`` (autocast; alignments stay in fp32).
    """

    end_task_rows: int = 32
    auxiliary_rows: int = 64
    row_budget: str = "none"
    max_length: int = 128
    max_steps: int = 600
    eval_every: int = 30
    patience: int = 20
    lr: float = 1e-4
    head_lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.01
    head_weight_decay: float = 0.1
    warmup: float = 0.06
    clip: float = 1.0
    fit_heads_steps: int = 0
    final_epochs: int = 10
    final_lr: float = 1e-6
    final_patience: int = 3
    micro_batch_tokens: int = 0
    precision: str = "fp32"


@attrs.frozen(kw_only=True)
class Meta:
    """The search: which objectives a step holds, and how their weights learn.

    :param objectives_per_step: a number, or 0 for all legal objectives in every step.
    :param factored: one logit per primitive beside the one per objective (``tartan`` switches it off).
    :param alignment: ``cosine`` (public code) or ``dot`` (paper, eq. 5).
    :param logit_step: ``direct`` (public code), ``softmax`` (through the Jacobian of w) or ``exponentiated``.
    :param factor_reduce: ``mean`` or ``sum`` over the objectives that share a primitive.
    :param row_shares: ``weight`` (at least `min_rows` each, c_k = (1 − λ) w_k), ``equal``, or ``systematic`` (rows
        sampled from w, c_k from the rows).
    :param update_every: steps between updates of the weights, by the mean over the window.
    :param dev_gradient_every: steps between fresh dev gradients.
    :param dev_gradient_decay: running mean of the dev gradient; 0 keeps only the newest.
    :param dev_rows: dev examples of one dev gradient.
    :param dev_head_rows, dev_head_steps, dev_head_lr, dev_head_weight_decay: fitting of the dev head.
    :param dev_head_split: ``train`` (paper's code) or ``dev`` (other examples than the gradient's).
    :param hold_back: share of dev that the meta-gradient never sees, and that alone stops training; 0 for none.
    :param balance: scale each objective by the running ratio of gradient norms, ‖g_e‖ / ‖g_k‖.
    :param engine: ``fused`` or ``looped``.
    """

    objectives_per_step: int = 6
    factored: bool = True
    alignment: str = "cosine"
    logit_step: str = "direct"
    factor_reduce: str = "mean"
    factor_lr: float = 0.1
    end_task_lr: float = 0.1
    row_shares: str = "weight"
    update_every: int = 1
    dev_gradient_every: int = 1
    dev_gradient_decay: float = 0.0
    dev_rows: int = 32
    dev_head_rows: int = 32
    dev_head_steps: int = 10
    dev_head_lr: float = 1e-2
    dev_head_weight_decay: float = 0.1
    dev_head_split: str = "train"
    hold_back: float = 0.0
    balance: bool = False
    engine: str = "looped"


@attrs.frozen(kw_only=True)
class Heads:
    """:param policy: ``per-objective`` or ``per-output`` (objectives with the same output share a head).
    :param decoder: ``tied`` to the encoder's embeddings, or ``untied`` copies (paper).
    """

    policy: str = "per-objective"
    decoder: str = "tied"


@attrs.frozen(kw_only=True)
class RunConfig:
    """Everything that a run depends on. Written whole to ``config.toml``.

    :param space: a registered name or a TOML file of blocks.
    :param with_: primitives added to their stage in every block (``with`` in TOML, ``--with``).
    :param external: corpora by data source, over those of the task.
    :param plugins: allow-list; empty for all that are installed.
    :param primitives: options of primitives by name.
    """

    task: str = "sample"
    model: str = ""
    space: str = "td+ed"
    with_: tuple[str, ...] = ()
    method: str = "aang"
    seeds: tuple[int, ...] = (0,)
    train_rows: int = 0
    external: Mapping[str, str] = attrs.field(factory=dict)
    plugins: tuple[str, ...] = ()
    device: str = "auto"
    training: Training = attrs.field(factory=Training)
    meta: Meta = attrs.field(factory=Meta)
    heads: Heads = attrs.field(factory=Heads)
    primitives: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
