"""Fit heads while the encoder is frozen: new auxiliary heads, and the end-task's head as a linear probe.

A head that starts at random sends large gradients into a pretrained encoder. A few hundred cheap steps on the auxiliary
heads with the body frozen avoid that (`fit_heads`); the end-task's head keeps its initial state there, unless auxiliary
objectives share it (``heads.policy``).

``heads.start = "probe"`` fits the last layer of the end-task's head on the features of the encoder as it comes, before
the first step, so that no random head distorts them (LP-FT: Kumar et al., ICLR 2022); dev judges this start as well.
The method ``probe`` ends there: logistic regression on frozen features. ``heads.finish = "probe"`` fits
it anew on the features of the trained encoder, as SetFit does (Tunstall et al., 2022), and dev decides whether
it is kept (``"always"``: it is kept in any case).
n labelled rows, D inputs of the last layer, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aang_core.config.settings import RunConfig
from aang_core.randomness import evaluating
from aang_core.train.evaluation import features_of, last_layer
from aang_core.train.optimizer import fuses
from aang_core.train.session import Session
from aang_core.train.step import dropout

_OUTSIDE = 1_000_000_000
"""The number of the first fitting step: far from those that the run itself plans."""

_ITERATIONS = 1000
_UNSEEN = 5.0
"""How far the logit of a class without labelled rows lies under the least of the others."""


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
    fused = fuses(own.values())
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], fused=fused)
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
    """One step. Dropout is off in the encoder; in the heads it is on, with the step's own random numbers."""
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


def begins_with_probe(config: RunConfig) -> bool:
    """Whether the end-task's last layer is a probe before the first step."""
    return config.method == "probe" or config.heads.start == "probe"


def fit_probe(session: Session) -> int:
    """Replace the last layer of the end-task's head by logistic regression on the labelled rows' features.

    The regression is L2-regularised with C = 1, as SetFit's head.

    :returns: the positions that were read for it.
    :raises ConfigError: where the task has no classes, or the head no linear last layer.
    """
    layer, rows = last_layer(session), session.planner.labelled.rows
    features = features_of(session, layer, rows)
    labels = torch.tensor([int(row.label) for row in rows])
    weight, bias = _regressed(features, labels, layer.out_features)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)
    return sum(map(len, rows))


def _regressed(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] of the softmax; classes without rows get a low bias."""
    present, targets = labels.unique(return_inverse=True)
    weight, bias = features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)
    if len(present) > 1:
        fitted = _fitted(features, targets, len(present))
        if len(present) == 2:  # one row, for the second class against the first
            fitted = torch.cat([-fitted, fitted]) / 2
        weight[present], bias[present] = fitted[:, :-1], fitted[:, -1]
    unseen = torch.ones(classes, dtype=torch.bool)
    unseen[present] = False
    bias[unseen] = bias[present].min() - _UNSEEN
    return weight, bias


def _fitted(features: Tensor, targets: Tensor, classes: int) -> Tensor:
    """[C, D + 1]: weights and offset of each class, of two classes the second's alone, [1, D + 1].

    The minimum of Σ cross-entropy + ‖W‖² / 2 by L-BFGS, with scikit-learn's objective, start and bounds: a probe
    is SetFit's head, without the import, which takes as long as the evaluation of a hundred rows.

    :param features: [n, D] in fp64. :param targets: [n] in 0 … C − 1; every class occurs.
    """
    from scipy.optimize import minimize

    count, width = features.shape
    free = classes if classes > 2 else 1
    truth = nn.functional.one_hot(targets, classes).to(features)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        own = torch.from_numpy(flat).view(free, width + 1)
        logits = nn.functional.pad(features @ own[:, :-1].T + own[:, -1], (classes - free, 0))
        loss = nn.functional.cross_entropy(logits, targets)
        error = ((logits.softmax(1) - truth) / count)[:, classes - free :]
        slope = torch.cat([error.T @ features + own[:, :-1] / count, error.sum(0)[:, None]], 1)
        penalty = own[:, :-1].square().sum() / (2 * count)
        return float(loss + penalty), slope.flatten().numpy()

    bounds = {"maxiter": _ITERATIONS, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}
    start = np.zeros(free * (width + 1))
    found = minimize(objective, start, method="L-BFGS-B", jac=True, options=bounds)
    return torch.from_numpy(found.x).view(free, width + 1)
