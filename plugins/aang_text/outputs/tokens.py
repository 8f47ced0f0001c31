"""Stage 4, facts about tokens: ``real-synthetic``, ``capitalization``, ``token-labels``, ``tf`` and ``tf-idf``.

The last two are regressions on how often tokens occur, from Aroca-Ouellette & Rudzicz, On Losses for Modern Language
Models (EMNLP 2020), which scale each document's values to at most 10. Here the largest of a row is 1: squared errors
are then of the size of the other losses. The document of a term frequency is the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.parts import PositionHead, backbone_of, new_head
from aang_core.batch.protocols import Binding, BoundSource
from aang_core.batch.rows import SINGLE, Hidden, Layout, Packed, Targets
from aang_core.errors import ModelError, TaskError
from aang_text.encoder.tokens import IDS

CASES = 3
"""No capital, a capital first letter, capitals throughout."""


class TokenOutput:
    """One answer per position, from a small head of its own.

    :ivar names: the answers in words, for people who look at targets.
    """

    name = ""
    names: tuple[str, ...] = ()
    outputs = 1
    layout = SINGLE
    min_rows = 1
    row_multiple = 1
    pointwise = True

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.width = int(backbone_of(binding, self.name).hidden_size)

    def head(self) -> nn.Module:
        """A new head: [M, H] → [M, outputs]."""
        return new_head(self.binding, self.name, lambda: PositionHead(self.width, self.outputs))

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] cross-entropies, in nats."""
        logits = read(head, hidden, targets)
        return F.cross_entropy(logits, targets.value.to(logits.device), reduction="none")

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is fitted."""
        return {}


def read(head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
    """[M, outputs]: the head at each target's position."""
    answers: Tensor = head(hidden.states[targets.index.to(hidden.states.device)])
    return answers


class RealSynthetic(TokenOutput):
    """Is the token shown another one than the original? Asked of every position (ELECTRA, §2).

    A replacement that happens to equal the original counts as real.
    """

    name = "real-synthetic"
    names = ("original", "changed")

    def targets(self, packed: Packed) -> Targets:
        """1 where the token was changed."""
        index = (~packed.special).nonzero().squeeze(1)
        changed = packed.inputs[IDS] != packed.original[IDS]
        return Targets(index=index, value=changed[index].long())

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] binary cross-entropies."""
        logits = read(head, hidden, targets).squeeze(-1)
        return F.binary_cross_entropy_with_logits(
            logits, targets.value.to(logits), reduction="none"
        )


class Capitalization(TokenOutput):
    """How the text wrote each token, which an uncased encoder never sees (3 classes).

    The mark ``cased`` comes from the characters of the text: 1 a capital first letter, 2 capitals
    throughout, 0 all else, −1 special positions, which have no target.
    """

    name = "capitalization"
    names = ("no capital", "capital first", "capitals")
    outputs = CASES

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        _needs_mark(binding, self.name, "cased")

    def targets(self, packed: Packed) -> Targets:
        cased = packed.marks["cased"]
        index = (cased >= 0).nonzero().squeeze(1)
        return Targets(index=index, value=cased[index].long())


class TokenLabels(TokenOutput):
    """The tags given in the data, at the first piece of each tagged word."""

    name = "token-labels"
    layout = Layout(relation="tags")

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        source = _source(binding, self.name)
        self.outputs = _tag_count(source)
        self.names = tuple(map(str, getattr(source, "tag_names", ())))

    def targets(self, packed: Packed) -> Targets:
        tag = packed.marks["tag"]
        index = (tag >= 0).nonzero().squeeze(1)
        return Targets(index=index, value=tag[index])

    def state(self) -> Mapping[str, Tensor]:
        """How many tags there are."""
        return {"tags": torch.tensor(self.outputs)}


def _source(binding: Binding, name: str) -> BoundSource:
    if binding.source is None:
        raise TaskError(f"{name}: expected a bound data source to read facts from, found none")
    return binding.source


def _needs_mark(binding: Binding, name: str, mark: str) -> None:
    """:raises ModelError: where the rows do not say what the output asks for."""
    row = next(_source(binding, name).rows(), None)
    if row is not None and mark not in row.marks:
        raise ModelError(
            f"{name}: expected rows with the mark {mark!r}, found {', '.join(sorted(row.marks))}; "
            f"use an encoder whose tokenizer gives character offsets, or a space without {name}"
        )


def _tag_count(source: BoundSource) -> int:
    highest = max(
        (int(row.marks["tag"].max()) for row in source.rows() if "tag" in row.marks), default=-1
    )
    if highest < 0:
        raise TaskError(
            "token-labels: expected texts with tags, found none; give the train split a column "
            "'tags' with one tag per word"
        )
    return highest + 1


class TermFrequency(TokenOutput):
    """How often each original token occurs in its row, over the row's most frequent one."""

    name = "tf"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.vocabulary = int(backbone_of(binding, self.name, "vocab_size").vocab_size)

    def targets(self, packed: Packed) -> Targets:
        """Every non-special position; values in (0, 1]."""
        index = (~packed.special).nonzero().squeeze(1)
        ids, row = packed.original[IDS][index], packed.row_of[index]
        _, inverse = (row * self.vocabulary + ids).unique(return_inverse=True)
        counts = torch.bincount(inverse)
        value = self._weighted(counts[inverse].to(torch.get_default_dtype()), ids)
        largest = value.new_zeros(len(packed.lengths)).scatter_reduce(0, row, value, "amax")
        return Targets(index=index, value=value / largest[row])

    def _weighted(self, frequency: Tensor, ids: Tensor) -> Tensor:  # noqa: ARG002
        """[M]: the frequency itself."""
        return frequency

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] squared errors."""
        answer = read(head, hidden, targets).squeeze(-1)
        return (answer - targets.value.to(answer)).square()


class TfIdf(TermFrequency):
    """The same, each token weighted by how few documents of the bound corpus hold it.

    ``idf = ln((1 + D) / (1 + df)) + 1`` over D documents, the smoothed form.
    """

    name = "tf-idf"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        if binding.source is None:
            raise TaskError("tf-idf: expected a bound data source to count in, found none")
        self.documents, found = document_frequencies(binding.source, self.vocabulary)
        if self.documents < 2:
            raise TaskError(
                f"tf-idf: expected a corpus of at least two documents, found {self.documents}; "
                "separate documents by blank lines, or use a space without tf-idf"
            )
        idf = ((1 + self.documents) / (1 + found.double())).log() + 1
        self.idf = idf.to(torch.get_default_dtype())

    def _weighted(self, frequency: Tensor, ids: Tensor) -> Tensor:
        return frequency * self.idf[ids]

    def state(self) -> Mapping[str, Tensor]:
        """The fitted weights and the number of documents behind them."""
        return {"idf": self.idf, "documents": torch.tensor(self.documents)}


def document_frequencies(source: BoundSource, vocabulary: int) -> tuple[int, Tensor]:
    """D, and [V] the number of documents in which each id occurs; rows come document by document."""
    documents, found = 0, torch.zeros(vocabulary, dtype=torch.long)
    for _, rows in groupby(source.rows(), key=lambda row: row.origin.document):
        ids = torch.cat([row.inputs[IDS][~row.special] for row in rows]).unique()
        if len(ids):
            documents += 1
            found[ids] += 1
    return documents, found
