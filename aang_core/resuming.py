"""A running session as a `Checkpoint`, and back.

Generators need no saving: every random number follows from the seed and the step (`aang_core.randomness`).
"""

from __future__ import annotations

from typing import Any

import attrs
import torch

from aang_core.checkpoint import (
    Checkpoint,
    optimizer_tensors,
    restore_optimizer,
    weight_state,
    weight_tensors,
)
from aang_core.progress import Progress
from aang_core.session import Session


def snapshot(session: Session, progress: Progress, history_bytes: int, kept: Any) -> Checkpoint:
    """Everything that the coming steps depend on.

    :param kept: remarks, engine and the like; JSON that comes back as it is.
    """
    tensors = {name: p.detach() for name, p in session.parameters.items()}
    tensors |= optimizer_tensors(session.optimizer, session.parameters)
    tensors |= weight_tensors(session.weights, "weights")
    planned = weight_tensors(session.planned, "planned")
    tensors |= {name: value.clone() for name, value in planned.items()}  # may be `weights` itself
    for name, value in (session.dev_gradient or {}).items():
        tensors[f"dev.{name}"] = value
    facts = {"progress": attrs.asdict(progress), "history_bytes": history_bytes, "kept": kept}
    return Checkpoint(tensors=tensors, facts=facts)


def restore(session: Session, saved: Checkpoint) -> Progress:
    """Put a snapshot back into a freshly built session of the same configuration."""
    with torch.no_grad():
        for name, parameter in session.parameters.items():
            parameter.copy_(saved.tensors[name])
    restore_optimizer(session.optimizer, session.parameters, saved.tensors)
    session.weights = weight_state(saved.tensors, "weights")
    session.planned = weight_state(saved.tensors, "planned")
    # In the encoder's own order, as it was made: the order of a sum shows in its last bit.
    names = [name for name in session.model.body() if f"dev.{name}" in saved.tensors]
    dev = {name: saved.tensors[f"dev.{name}"].to(session.device) for name in names}
    session.dev_gradient = dev or None
    facts = dict(saved.facts["progress"])
    return Progress(**{**facts, "evaluations": tuple(facts["evaluations"])})
