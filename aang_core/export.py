"""What a finished seed leaves for others: a model that needs no aang, and its predictions on test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aang_core.errors import RunError
from aang_core.evaluation import predict
from aang_core.session import Session
from aang_core.task import Task

TOLERANCE = 1e-4
_CHECKED = 256


def export_model(session: Session, directory: Path) -> None:
    """Write ``model/`` and prove it: reloaded from its files alone it gives the same dev logits.

    :raises RunError: where a logit of the first dev examples (at most 256) differs by more than 1e-4, relative to the
        largest; the files are removed then.
    """
    backbone, task = session.model.backbone, session.task
    backbone.export(directory, session.end_task_head, task)
    rows = session.stopping[:_CHECKED]
    examples = [task.splits["dev"][row.origin.document] for row in rows]
    logits = predict(backbone, session.end_task_head, task, rows)
    ours = torch.cat([each.reshape(-1, each.shape[-1]) for each in logits])
    theirs = backbone.exported_logits(directory, examples).float().cpu()
    gap = float((ours - theirs.reshape(ours.shape)).abs().max() / ours.abs().max().clamp(min=1.0))
    if not gap <= TOLERANCE:
        shutil.rmtree(directory)
        raise RunError(
            f"the exported model's dev logits differ from the trained one's by {gap:.1e} "
            f"(at most {TOLERANCE:.0e}); nothing was exported"
        )


def prediction(task: Task, logits: Tensor) -> dict[str, Any]:
    """One row's logits as a label (or several, or a number) with probabilities."""
    if task.kind == "regression":
        return {"value": float(logits[0])}
    names = task.label_names
    if task.kind == "multilabel":
        chances = torch.sigmoid(logits).tolist()
        chosen = [name for name, chance in zip(names, chances, strict=True) if chance > 0.5]
        return {"labels": chosen, "probabilities": dict(zip(names, chances, strict=True))}
    chances = torch.softmax(logits, -1).tolist()
    if task.kind == "token":
        return {"labels": [names[max(range(len(c)), key=c.__getitem__)] for c in chances]}
    best = max(range(len(chances)), key=chances.__getitem__)
    return {"label": names[best], "probabilities": dict(zip(names, chances, strict=True))}


def write_predictions(session: Session, directory: Path) -> None:
    """``predictions.jsonl``: the chosen checkpoint's answer for each test text, in the order of the split."""
    if not session.test:
        return
    logits = predict(session.model.backbone, session.end_task_head, session.task, session.test)
    lines = _lines(session.task, logits)
    (directory / "predictions.jsonl").write_text(lines, encoding="utf-8")


def _lines(task: Task, logits: Sequence[Tensor]) -> str:
    rows = ({"row": i, **prediction(task, each)} for i, each in enumerate(logits))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
