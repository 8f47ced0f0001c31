"""Stage 4, questions about two texts: ``nsp``, ``adjacent-sentence``, ``sentence-order``, ``sentence-continuation``.

The data source draws the rows and knows the answers (`aang_text.data.documents`); a small head reads the state at
each row's first position, as BERT does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.parts import PositionHead, backbone_of, new_head
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Hidden, Layout, Packed, Targets
from aang_core.errors import PluginError
from aang_text.data.documents import say_what_is_cut


class StructureOutput:
    """One question a row; its relation says which."""

    name = ""
    relation = ""
    classes = 2
    min_rows = 1
    row_multiple = 1
    pointwise = True

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.layout = Layout("pair", self.relation)
        self.width = int(backbone_of(binding, self.name).hidden_size)
        say_what_is_cut(binding, self.name, self.layout)

    def targets(self, packed: Packed) -> Targets:
        """One target a row; index counts rows.

        :raises PluginError: where the source did not answer the question.
        """
        if packed.structure is None:
            raise PluginError(
                f"{self.name}: expected rows that answer the question {self.relation!r}, found rows "
                "without `structure`; the data source draws no such layout"
            )
        rows = torch.arange(len(packed.lengths))
        return Targets(index=rows, value=packed.structure.long(), level="row")

    def head(self) -> nn.Module:
        """A new head: [M, H] → [M, classes]."""
        return new_head(self.binding, self.name, lambda: PositionHead(self.width, self.classes))

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M] cross-entropies, in nats."""
        logits = head(hidden.first(targets.index.to(hidden.states.device)))
        return F.cross_entropy(logits, targets.value.to(logits.device), reduction="none")

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is fitted."""
        return {}


class NextSentence(StructureOutput):
    """Is the second text the sentence that follows the first, or one of another document? (BERT, §3.1)"""

    name = "nsp"
    relation = "next"


class AdjacentSentence(StructureOutput):
    """Does the second text follow the first, precede it, or come from another document? (StructBERT, §2.3)"""

    name = "adjacent-sentence"
    relation = "adjacent"
    classes = 3


class SentenceOrder(StructureOutput):
    """Do two neighbouring sentences stand in their order, or are they swapped? (ALBERT, §3.1)"""

    name = "sentence-order"
    relation = "order"


class SentenceContinuation(StructureOutput):
    """Does the second text end the sentence that the first begins, or another one?"""

    name = "sentence-continuation"
    relation = "continuation"
