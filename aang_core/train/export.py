"""What a finished seed leaves for others: a model that needs no aang, and its predictions on test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from aang_core.batch.rows import Row, word_starts
from aang_core.data.spec import LABEL
from aang_core.data.task import Task
from aang_core.errors import RunError
from aang_core.train.session import Session

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
    logits = session.predict(rows)
    ours = torch.cat([each.reshape(-1, each.shape[-1]) for each in logits])
    theirs = backbone.exported_logits(directory, examples).float().cpu()
    gap = float((ours - theirs.reshape(ours.shape)).abs().max() / ours.abs().max().clamp(min=1.0))
    if not gap <= TOLERANCE:
        shutil.rmtree(directory)
        raise RunError(
            f"the exported model's dev logits differ from the trained one's by {gap:.1e} "
            f"(at most {TOLERANCE:.0e}); nothing was exported"
        )


class Answered(Protocol):
    """What logits are about: a `task.Task`, or an exported model that remembers one."""

    @property
    def kind(self) -> str:
        """One of `task_spec.KINDS`."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes in order."""


def prediction(task: Answered, logits: Tensor) -> dict[str, Any]:
    """One row's logits as a label (or several, or a number) with probabilities.

    :param logits: [C], or for token tasks [words, C].
    """
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


def write_predictions(
    task: Task, logits: Sequence[Tensor], rows: Sequence[Row], directory: Path
) -> None:
    """``predictions.jsonl``: the chosen checkpoint's answer for each test example, in the order of the split.

    :param logits: of each row, [C], or [T, C] for token tasks, of which the first position of each word answers.
    """
    if task.kind == "token":
        logits = [
            each[word_starts(row.marks["word"])] for each, row in zip(logits, rows, strict=True)
        ]
    (directory / "predictions.jsonl").write_text(_lines(task, logits), encoding="utf-8")


def _lines(task: Task, logits: Sequence[Tensor]) -> str:
    """A line a row: its inputs, what is predicted, and under ``gold`` the true answer where test has labels."""
    examples = task.splits["test"]
    rows = (
        {"row": i, **prediction(task, each), **_known(task, example)}
        for i, (each, example) in enumerate(zip(logits, examples, strict=True))
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _known(task: Task, example: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {name: value for name, value in example.items() if name != LABEL}
    if LABEL not in example:
        return {"inputs": inputs}
    return {"inputs": inputs, "gold": gold(task, example[LABEL])}


def gold(task: Task, label: Any) -> Any:
    """A label of a split as `prediction` would say it: a name, a list of names, or a number."""
    names = task.label_names
    if task.kind == "multilabel":
        return [name for name, on in zip(names, label, strict=True) if on]
    if task.kind == "token":
        return [names[number] for number in label]
    return names[label] if task.kind == "class" else label
