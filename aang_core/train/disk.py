"""How much disk a run needs: its bound, known before the first step, and what is free where it will lie."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from aang_core.train.checkpoint import KEPT
from aang_core.train.guard import guarded
from aang_core.train.resuming import trained_tensors
from aang_core.train.session import META_METHODS, Session

_MIB = 2**20


def disk_mib(session: Session) -> dict[str, float]:
    """What all seeds leave, and what the one that is running needs beside it, in MiB; text files are not counted.

    A checkpoint holds what training changes, two moments of every parameter, and the dev gradient where the method has
    one. The best parameters are complete before the former ones go, and the final fine-tuning keeps those that it began
    with.
    """
    config = session.config
    kept = size_mib(trained_tensors(session).values())
    trained = size_mib(session.parameters.values())
    body = size_mib(session.model.body().values())
    one = kept + 2 * trained + (body if config.method in META_METHODS else 0)
    model = size_mib(session.model.backbone.body.parameters())
    trainings = 2 if guarded(config) else 1
    parts = {
        "checkpoints while it runs": trainings * (KEPT * one + 2 * kept),
        "best parameters": trainings * len(config.seeds) * kept,
        "models": len(config.seeds) * (model + size_mib(session.end_task_head.parameters())),
    }
    return {**parts, "total": sum(parts.values())}


def free_mib(directory: Path) -> float:
    """What is free where a directory lies or will lie, in MiB."""
    place = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    return shutil.disk_usage(place).free / _MIB


def disk_remark(session: Session, directory: Path) -> str:
    """The bound as a sentence, with a warning where less is free."""
    need, free = disk_mib(session)["total"], free_mib(directory)
    said = f"disk: at most {need:,.0f} MiB in {directory}"
    return (
        f"{said}; only {free:,.0f} MiB are free there, so it may not end" if free < need else said
    )


def size_mib(tensors: Iterable[Tensor]) -> float:
    """MiB."""
    return sum(t.numel() * t.element_size() for t in tensors) / _MIB
