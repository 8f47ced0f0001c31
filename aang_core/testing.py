"""The public contract kit: what every primitive must keep to, checked on a tiny real encoder."""

from __future__ import annotations

import torch

from aang_core._tiny import TinyBackbone
from aang_core.task import Task


def tiny_backbone(
    dtype: torch.dtype = torch.float32, seed: int = 0, dropout: float = 0.0
) -> TinyBackbone:
    """A real two-layer encoder of 32 hidden units over 97 ids, the same for the same `seed`."""
    return TinyBackbone(dtype, seed, dropout)


def tiny_task(kind: str = "class", rows: int = 24, seed: int = 0, classes: int = 3) -> Task:
    """A task over texts of integers whose answer can be learned from the first integer.

    The splits ``train`` [rows], ``dev`` and ``test`` [rows // 2 each], and as many unlabelled texts
    as training rows.
    """
    from datasets import Dataset

    generator = torch.Generator().manual_seed(seed)
    names = () if kind == "regression" else tuple(f"class-{c}" for c in range(classes))

    def split(count: int, labelled: bool = True) -> Dataset:
        lengths = torch.randint(3, 13, (count,), generator=generator).tolist()
        words = [torch.randint(0, 120, (n,), generator=generator).tolist() for n in lengths]
        columns: dict[str, list[object]] = {"text": [" ".join(map(str, w)) for w in words]}
        if labelled:
            # Every class is in every split, whatever was drawn.
            for i, word in enumerate(words):
                word[0] = word[0] // classes * classes + i % classes
            columns["text"] = [" ".join(map(str, w)) for w in words]
            columns["label"] = [_label(kind, w, classes) for w in words]
        return Dataset.from_dict(columns)

    return Task(
        name=f"tiny-{kind}",
        kind=kind,
        metric="pearson" if kind == "regression" else "accuracy",
        splits={"train": split(rows), "dev": split(rows // 2), "test": split(rows // 2)},
        label_names=names,
        unlabelled=split(rows, labelled=False),
    )


def _label(kind: str, words: list[int], classes: int) -> object:
    if kind == "class":
        return words[0] % classes
    if kind == "regression":
        return words[0] / 120
    if kind == "multilabel":
        return [int(words[0] % classes == c or words[-1] % classes == c) for c in range(classes)]
    return [word % classes for word in words]  # token: one a word
