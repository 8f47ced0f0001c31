"""Stage 4, facts about tokens: ``real-synthetic``, ``capitalization`` and ``token-labels``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.protocols import Binding, BoundSource
from aang_core.batch.rows import SINGLE, Hidden, Layout, Packed, Targets
from aang_core.errors import ModelError, TaskError
from aang_text.offers import backbone_of
from aang_text.outputs.heads import PositionHead, new_head
from aang_text.tokens import IDS

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
