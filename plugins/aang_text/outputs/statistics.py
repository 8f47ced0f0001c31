"""Stage 4, regressions on how often tokens occur: ``tf`` and ``tf-idf``.

From Aroca-Ouellette & Rudzicz, On Losses for Modern Language Models (EMNLP 2020), which scale each
document's values to at most 10. Here the largest of a row is 1: squared errors are then of the size
of the other losses. The document of a term frequency is the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import torch
from torch import Tensor, nn

from aang_core.batch.protocols import Binding, BoundSource
from aang_core.batch.rows import Hidden, Packed, Targets
from aang_core.errors import TaskError
from aang_text.offers import backbone_of
from aang_text.outputs.tokens import TokenOutput, read
from aang_text.tokens import IDS


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
