"""Fit heads while the encoder is frozen: new auxiliary heads, and the end-task's head as a linear probe.

A head that starts at random sends large gradients into a pretrained encoder. A few hundred cheap steps on the auxiliary
heads with the body frozen avoid that (`fit_heads`); the end-task's head keeps its initial state there, unless auxiliary
objectives share it (``heads.policy``).

``heads.start = "probe"`` fits the last layer of the end-task's head on the features of the encoder as it comes, before
the first step, so that no random head distorts them (LP-FT: Kumar et al., ICLR 2022); dev judges this start as well.
The method ``probe`` ends there: logistic regression on frozen features. ``"tempered-probe"`` then scales the layer down
(`temper`): a probe of some hundred labels has them all right and is sure of them, so their loss, and with it the
gradient of the end-task, is near zero before the first step, and the encoder learns little (the norm of the head rules
how far features move: Tomihari & Sato, NeurIPS 2024). ``heads.finish = "probe"`` fits a probe anew on the features of
the trained encoder, as SetFit does (Tunstall et al., 2022), and dev decides whether it is kept (``"always"``: it is
kept in any case).
n labelled rows, D inputs of the last layer, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

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

_FOLDS = 5
_HALVINGS = 30


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
    return config.method == "probe" or config.heads.start != "fresh"


def begins_tempered(config: RunConfig) -> bool:
    """Whether that probe is scaled down; the method ``probe`` ends with it as it is."""
    return config.method != "probe" and config.heads.start == "tempered-probe"


def fit_probe(session: Session, *, tempered: bool = False) -> int:
    """Replace the last layer of the end-task's head by logistic regression on the labelled rows' features.

    The regression is L2-regularised with C = 1, as SetFit's head.

    :param tempered: scale it as `temper` says. Its answers stay the same.
    :returns: the positions that were read for it.
    :raises ConfigError: where the task has no classes, or the head no linear last layer.
    """
    layer, rows = last_layer(session), session.planner.labelled.rows
    features = features_of(session, layer, rows)
    labels = torch.tensor([int(row.label) for row in rows])
    weight, bias = _regressed(features, labels, layer.out_features)
    if tempered:
        share = temper(features, labels, weight, bias)
        weight, bias = share * weight, share * bias
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)
    return sum(map(len, rows))


def temper(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> float:
    """The factor in (0, 1] for a probe's logits at which its loss on its own rows is that of rows it has not seen.

    So the labels leave the encoder as much to learn as they have to tell. The loss on unseen rows is measured by five
    folds, of probes scaled by one factor that is best for them (a probe is too sure of new rows as well; without that
    their loss could exceed log C). Rows whose class has no row outside their fold are left out. 1 where none remain.

    :param features: [n, D]. :param labels: [n]. :param weight, bias: [C, D] and [C], of `_regressed`.
    """
    unseen, answers = _held_out(features, labels, len(bias))
    if not len(answers):
        return 1.0
    surprise = _loss(unseen, answers, _bisected(lambda share: _slope(unseen, answers, share) < 0))
    seen = features @ weight.T + bias
    return _bisected(lambda share: _loss(seen, labels, share) > surprise)


def _loss(logits: Tensor, labels: Tensor, share: float) -> float:
    return float(nn.functional.cross_entropy(share * logits, labels))


def _slope(logits: Tensor, labels: Tensor, share: float) -> float:
    """Of `_loss` in the share, in which it is convex."""
    expected = ((share * logits).softmax(1) * logits).sum(1)
    return float((expected - logits.gather(1, labels[:, None])[:, 0]).mean())


def _bisected(below: Callable[[float], bool]) -> float:
    """The end of those shares from 0 on that are `below`, at most 1."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return high


def _held_out(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Logits [m, C] of rows under probes that were fitted without their fold, and their labels [m]."""
    fold, spread = torch.empty_like(labels), torch.arange(len(labels)) % _FOLDS
    fold[labels.argsort(stable=True)] = spread  # the rows of a class lie in different folds
    logits, answers = [features.new_zeros(0, classes)], [labels[:0]]
    for number in range(_FOLDS):
        inside = fold != number
        known = torch.isin(labels, labels[inside]) & ~inside
        if known.any():
            weight, bias = _regressed(features[inside], labels[inside], classes)
            logits.append(features[known] @ weight.T + bias)
            answers.append(labels[known])
    return torch.cat(logits), torch.cat(answers)


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
