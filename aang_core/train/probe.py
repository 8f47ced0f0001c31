"""A linear probe as the last layer of the end-task's head: how the head may start, and how it may end.

``heads.start = "probe"`` fits it on the features of the encoder as it comes, before the first step, so that no random
head distorts them (LP-FT: Kumar et al., ICLR 2022). ``heads.finish = "probe"`` fits it anew on the features of the
trained encoder, as SetFit does (Tunstall et al., 2022), and dev decides whether it is kept.
n labelled rows, D inputs of the last layer, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aang_core.batch.packing import plain_batch
from aang_core.batch.rows import Row
from aang_core.errors import ConfigError
from aang_core.randomness import evaluating
from aang_core.train.evaluation import by_length
from aang_core.train.session import Session

_ITERATIONS = 1000
_UNSEEN = 5.0
"""How far the logit of a class without labelled rows lies under the least of the others."""


def fit_probe(session: Session) -> int:
    """Replace the last layer of the end-task's head by logistic regression on the labelled rows' features.

    The regression is scikit-learn's, L2-regularised with C = 1, as SetFit's head.

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


def last_layer(session: Session) -> nn.Linear:
    """The linear layer that gives the end-task's logits.

    :raises ConfigError: where a probe cannot stand there.
    """
    task, wanted = session.task, session.task.num_outputs
    if task.kind != "class":
        raise ConfigError(
            f"a probe needs classes, one a text; the task {task.name!r} is of the kind {task.kind!r}: set heads.start "
            "and heads.finish to their defaults"
        )
    layers = [m for m in session.end_task_head.modules() if isinstance(m, nn.Linear)]
    if not layers or layers[-1].out_features != wanted:
        raise ConfigError(
            f"a probe replaces a last linear layer with {wanted} outputs; the end-task's head of "
            f"{session.model.backbone.name} has none: set heads.start and heads.finish to their defaults"
        )
    return layers[-1]


def features_of(session: Session, layer: nn.Linear, rows: Sequence[Row]) -> Tensor:
    """[n, D] in fp64 on the CPU: what the last layer is given for each row, dropout off."""
    backbone, head, device = session.model.backbone, session.end_task_head, session.device
    given: list[Tensor] = []
    found: list[Tensor | None] = [None] * len(rows)
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    try:
        with evaluating(backbone.body), evaluating(head), torch.no_grad():
            for batch in by_length([len(row) for row in rows]):
                hidden = backbone.encode(plain_batch([rows[i] for i in batch]).to(device))
                head(hidden, torch.arange(len(batch), device=device))
                for i, feature in zip(batch, given.pop().double().cpu(), strict=True):
                    found[i] = feature
    finally:
        hook.remove()
    return torch.stack([feature for feature in found if feature is not None])


def _regressed(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] of the softmax; classes that no row has get a low bias."""
    from sklearn.linear_model import LogisticRegression

    present = labels.unique()
    weight, bias = features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)
    if len(present) > 1:
        fitted = LogisticRegression(max_iter=_ITERATIONS).fit(features.numpy(), labels.numpy())
        rows, offsets = torch.as_tensor(fitted.coef_), torch.as_tensor(fitted.intercept_)
        if len(present) == 2:  # one row, for the second class against the first
            rows, offsets = torch.cat([-rows, rows]) / 2, torch.cat([-offsets, offsets]) / 2
        weight[present], bias[present] = rows, offsets
    unseen = torch.ones(classes, dtype=torch.bool)
    unseen[present] = False
    bias[unseen] = bias[present].min() - _UNSEEN
    return weight, bias
