"""The guard against harm: run plain fine-tuning as well, and let dev decide which model to keep.

Auxiliary objectives can hurt (negative transfer). With ``guard`` a run also fine-tunes the same encoder on the end-task
alone, with as many rows a step, the same labelled rows and the same trainer, and keeps that model if it is better on
dev. Test is read once, for the model that is kept; the cost of both is the run's cost.
"""

from __future__ import annotations

from typing import Any

import attrs

from aang_core.config.settings import WITHOUT_OBJECTIVES, RunConfig
from aang_core.errors import ConfigError
from aang_core.train.resolve import ResolvedRun, seed_task
from aang_core.train.trainer import Trainer

PLAIN = "finetune"
NO_BASELINE = "none"
AUTO_BASELINE = "auto"
AGAINST = (AUTO_BASELINE, PLAIN, NO_BASELINE)
"""What ``--against`` takes."""

FEW = 500
"""Labelled training rows up to which ``auto`` trains a baseline: with so few, it costs minutes and chance is large."""


def guarded(config: RunConfig) -> bool:
    """Whether a run also fine-tunes plainly; methods without objectives need no guard."""
    return config.guard and config.method not in WITHOUT_OBJECTIVES


def baseline_of(resolved: ResolvedRun, against: str) -> str:
    """The method of the baseline that a run also trains, or an empty text for none.

    :param against: one of `AGAINST`; ``auto`` means ``finetune`` where a seed trains on at most `FEW` labelled
        rows, and none for a method without objectives.
    :raises ConfigError: for another word, or where the run would be its own baseline.
    """
    if against not in ("", *AGAINST):
        raise ConfigError(f"against must be one of {', '.join(AGAINST)} (got {against!r})")
    method = resolved.config.method
    if against == PLAIN and method == PLAIN:
        raise ConfigError(
            f"a run with the method {PLAIN!r} cannot be set against itself; choose another method"
        )
    if against != AUTO_BASELINE or method in WITHOUT_OBJECTIVES:
        return PLAIN if against == PLAIN else ""
    rows = len(seed_task(resolved, resolved.config.seeds[0]).splits["train"])
    return PLAIN if rows <= FEW else ""


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
