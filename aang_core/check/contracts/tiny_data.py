"""The contract kit's data: a tiny task, corpus and data source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Generator

from aang_core.batch.packing import pack
from aang_core.batch.protocols import Backbone, Binding, BoundSource
from aang_core.batch.rows import SINGLE, Layout, Origin, Packed, Row
from aang_core.check.contracts.tiny_encoder import tiny_backbone
from aang_core.data.task import Task
from aang_core.registry.records import DataSource, Primitive

_WORDS = 120


def tiny_task(
    kind: str = "class", rows: int = 24, seed: int = 0, classes: int = 3, tags: bool = False
) -> Task:
    """A task over texts of integers whose answer can be learned from the integers themselves.

    The splits ``train`` [rows], ``dev`` and ``test`` [rows // 2 each], and as many unlabelled texts
    as training rows; with `tags`, each word of train has one of three.
    """
    from datasets import Dataset

    generator = torch.Generator().manual_seed(seed)

    def split(count: int, labelled: bool, tagged: bool = False) -> Dataset:
        texts = _texts(count, generator)
        if labelled:
            for i, words in enumerate(texts):  # every class is in every split
                words[0] = words[0] // classes * classes + i % classes
        columns: dict[str, list[object]] = {"text": [" ".join(map(str, w)) for w in texts]}
        if labelled:
            columns["label"] = [_label(kind, w, classes) for w in texts]
        if tagged:
            columns["tags"] = [[word % 3 for word in w] for w in texts]
        return Dataset.from_dict(columns)

    return Task(
        name=f"tiny-{kind}",
        kind=kind,
        metric="pearson" if kind == "regression" else "accuracy",
        splits={
            "train": split(rows, True, tags),
            "dev": split(rows // 2, True),
            "test": split(rows // 2, True),
        },
        label_names=() if kind == "regression" else tuple(f"class-{c}" for c in range(classes)),
        unlabelled=split(rows, False),
    )


def _texts(count: int, generator: Generator) -> list[list[int]]:
    lengths = torch.randint(3, 13, (count,), generator=generator).tolist()
    return [torch.randint(0, _WORDS, (n,), generator=generator).tolist() for n in lengths]


def _label(kind: str, words: list[int], classes: int) -> object:
    if kind == "class":
        return words[0] % classes
    if kind == "regression":
        return words[0] / _WORDS
    if kind == "multilabel":
        return [int(words[0] % classes == c or words[-1] % classes == c) for c in range(classes)]
    return [word % classes for word in words]  # token: one a word


class TinySource:
    """A real data source in every layout, over a tiny task's training texts and two very short ones.

    Rows have a label, the mark ``tag``, and, where the layout asks a question, the answers 0 and 1 in
    turn. Two texts make a document.
    """

    provides = frozenset(
        f"data:{what}"
        for what in (
            *("labels", "end-task", "aux-labels", "tags"),
            *("document-order", "documents", "sentences"),
        )
    )

    def __init__(self, task: Task, backbone: Backbone) -> None:
        self.task, self.backbone = task, backbone
        split = task.splits["train"]
        self.texts = [*split["text"], "7", "95"]
        self.labels = [*split["label"], split["label"][0], split["label"][1]]

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self) -> Iterator[Row]:
        """Every text once."""
        yield from self._made([{"text": text} for text in self.texts], range(len(self)))

    def examples(self) -> Iterator[tuple[Origin, Mapping[str, Any]]]:
        """Every text once, with its row's origin."""
        for n, text in enumerate(self.texts):
            yield Origin("tiny", n // 2, n % 2), {"text": text}

    def draw(self, layout: Layout, count: int, generator: Generator) -> list[Row]:
        """`count` rows drawn uniformly with replacement."""
        numbers = torch.randint(len(self), (count,), generator=generator).tolist()
        if layout.kind == "two-views":
            numbers = [n for n in numbers for _ in range(2)][:count]
        other = torch.randint(len(self), (count,), generator=generator).tolist()
        examples = [{"text": self.texts[n]} for n in numbers]
        if layout.kind == "pair":
            pairs = zip(examples, other, strict=True)
            examples = [{**example, "text_pair": self.texts[n]} for example, n in pairs]
        rows = self._made(examples, numbers)
        if not layout.relation:
            return rows
        group = 2 if layout.kind in ("neighbours", "two-views") else 1
        return [attrs.evolve(row, structure=i // group % 2) for i, row in enumerate(rows)]

    def _made(self, examples: list[dict[str, str]], numbers: range | list[int]) -> list[Row]:
        origins = [Origin("tiny", n // 2, n % 2) for n in numbers]
        rows = self.backbone.rows(examples, origins)
        return [
            attrs.evolve(
                row,
                label=self.labels[n],
                marks={**row.marks, "tag": torch.where(row.special, -100, row.marks["word"] % 3)},
            )
            for row, n in zip(rows, numbers, strict=True)
        ]


def tiny_source(task: Task | None = None, backbone: Backbone | None = None) -> TinySource:
    """A data source for outputs to be bound to."""
    return TinySource(task or tiny_task(), backbone or tiny_backbone())


def source_of(binding: Binding) -> BoundSource:
    """Rows to check a primitive on: the binding's own source, or the tiny one."""
    if binding.source is not None:
        return binding.source
    return tiny_source(binding.task, binding.backbone)


def tiny_packed(
    source: BoundSource, layout: Layout = SINGLE, rows: int = 12, seed: int = 0
) -> Packed:
    """Some rows of a source, untransformed."""
    return pack(source.draw(layout, rows, torch.Generator().manual_seed(seed)))


def tiny_binding(record: Primitive, folder: Path) -> Binding:
    """A binding on which a primitive can be checked: float64, its own options, and its data.

    :param folder: where a corpus under the record's name is written, should it ask for one.
    """
    corpus = folder / "corpus.txt"
    texts = [" ".join(map(str, w)) for w in _texts(24, torch.Generator().manual_seed(1))]
    blocks = ["\n".join(texts[i : i + 4]) for i in range(0, len(texts), 4)]
    corpus.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    task = tiny_task(tags=True)
    task = attrs.evolve(task, external={record.name: corpus}, auxiliary={task.name: task})
    own = {"task": task.name} if isinstance(record, DataSource) and record.per_task else {}
    backbone = tiny_backbone(torch.float64)
    return Binding(
        task=task,
        backbone=backbone,
        options={**record.options, **record.trial_options, **own},
        source=tiny_source(task, backbone) if record.stage == "output" else None,
        cache=folder,
    )
