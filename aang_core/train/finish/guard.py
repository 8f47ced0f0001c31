"""The guard against harm: run plain fine-tuning as well, and let dev decide which model to keep.

Auxiliary objectives can hurt (negative transfer). With ``guard`` a run also fine-tunes the same encoder on the end-task
alone, with as many rows a step, the same labelled rows and the same trainer, and keeps that model if it is better on
dev. Test is read once, for the model that is kept; the cost of both is the run's cost.
"""

from __future__ import annotations

from typing import Any

import attrs

from aang_core.config.settings import WITHOUT_OBJECTIVES, RunConfig
from aang_core.train.resolve import ResolvedRun
from aang_core.train.trainer import Trainer

PLAIN = "finetune"


def guarded(config: RunConfig) -> bool:
    """Whether a run also fine-tunes plainly; methods without objectives have nothing to be guarded against."""
    return config.guard and config.method not in WITHOUT_OBJECTIVES


def plain_run(resolved: ResolvedRun) -> ResolvedRun:
    """The same run as plain fine-tuning at equal tokens."""
    training = attrs.evolve(resolved.config.training, row_budget="end-task")
    config = attrs.evolve(resolved.config, method=PLAIN, training=training, weights="", guard=False)
    return attrs.evolve(resolved, config=config, space=None)


def verdict(search: Trainer, plain: Trainer) -> dict[str, Any]:
    """Which of two finished trainings is kept: the search, unless the plain one is better on dev.

    :returns: ``kept`` (a method), ``dev`` score of each method, ``metric``, and ``said``, the same for people.
    """
    method, metric = search.session.config.method, search.session.task.metric
    ours, theirs = search.progress.best_score, plain.progress.best_score
    assert ours is not None  # a fitting without a best checkpoint has raised
    assert theirs is not None
    hurt = theirs > ours
    numbers = (
        f"{ours:.4f} on dev ({metric}) against {theirs:.4f} of plain fine-tuning at equal tokens"
    )
    said = (
        f"dev says that the auxiliary objectives hurt: {numbers}; the plainly fine-tuned model is kept"
        if hurt
        else f"dev does not say that the auxiliary objectives hurt: {numbers}"
    )
    return {
        "kept": PLAIN if hurt else method,
        "metric": metric,
        "dev": {method: ours, PLAIN: theirs},
        "said": said,
    }
