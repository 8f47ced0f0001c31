"""New auxiliary heads, fitted before the encoder moves.

A head that starts at random sends large gradients into a pretrained encoder; a few hundred cheap steps with the body
frozen avoid that. The end-task's head keeps its initial state, unless auxiliary objectives share it (``heads.policy``).
"""

from __future__ import annotations

import torch

from aang_core.randomness import evaluating
from aang_core.train.session import Session
from aang_core.train.step import dropout

_OUTSIDE = 1_000_000_000
"""The number of the first fitting step: far from those that the run itself plans."""


def fit_heads(session: Session, steps: int) -> None:
    """`steps` optimiser steps on the auxiliary heads alone, on batches that the run itself does not draw."""
    own = {name: p for name, p in session.parameters.items() if name.startswith("heads.")}
    if steps == 0 or not own or not session.planner.objectives:
        return
    training = session.config.training
    groups = [
        {
            "params": [p for name, p in own.items() if name not in session.pretrained],
            "lr": training.head_lr,
            "weight_decay": training.head_weight_decay,
        },
        {
            "params": [p for name, p in own.items() if name in session.pretrained],
            "lr": training.lr,
            "weight_decay": training.weight_decay,
        },
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], fused=True)
    frozen = [p for name, p in session.parameters.items() if name.startswith("body.")]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        for step in range(steps):
            _one_step(session, optimizer, _OUTSIDE + step)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _one_step(session: Session, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Dropout is off in the encoder, on in the heads, and there of the step's own random numbers."""
    plan = session.planner.plan(step, session.weights, "auxiliary")
    places, batch = session.planner.batch(plan, session.processes)
    if batch is not None:
        batch = session.taught(batch, plan).batch
        with evaluating(session.model.backbone.body), torch.no_grad():
            hidden = session.model.backbone.encode(batch)
        with dropout(session, step):
            losses = session.model.heads.losses(hidden, batch)
        weighted = losses * plan.coefficients[places].to(losses)
        torch.autograd.backward(weighted.sum())
    session.processes.sum_gradients(p for group in optimizer.param_groups for p in group["params"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
