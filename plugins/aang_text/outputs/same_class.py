"""Stage 4, do two labelled texts have the same class? ``same-class`` in pairs, ``class-contrast`` over all of a step.

Both read a row's vector: the mean of its states, or the first one. Rows come in pairs of one class or of two, balanced
over the classes (the layout relation ``same-label``). R rows of a step, M targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Hidden, Layout, Packed, Targets

POOLINGS = ("mean", "first")


def faults(options: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with values of ``[primitives.same-class]`` or ``[primitives.class-contrast]``."""
    if options["pooling"] not in POOLINGS:
        yield f"`pooling` must be one of {', '.join(POOLINGS)} (got {options['pooling']!r})"
    if not options.get("temperature", 1.0) > 0:
        yield f"`temperature` must be over 0 (got {options['temperature']!r})"


class _Vectors:
    """What both share: vectors of rows, compared by their cosine, without parameters of their own."""

    layout = Layout("neighbours", "same-label")
    min_rows = 4
    row_multiple = 2

    def __init__(self, binding: Binding) -> None:
        self.options = binding.options

    def head(self) -> nn.Module:
        """Nothing to train: the vectors are the encoder's own."""
        return nn.Identity()

    def vectors(self, hidden: Hidden, rows: Tensor) -> Tensor:
        """[len(rows), H], of length 1."""
        rows = rows.to(hidden.states.device)
        read = hidden.means if self.options["pooling"] == "mean" else hidden.first
        return F.normalize(read(rows), dim=-1)

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is fitted."""
        return {}


class SameClass(_Vectors):
    """Squared error [M] between the cosine of two texts and 1 or 0: whether they have one class.

    As SetFit trains its encoder (Tunstall et al., "Efficient Few-Shot Learning Without Prompts", 2022, §3.1). Option
    ``pooling``: ``mean`` or ``first``.
    """

    pointwise = True

    def targets(self, packed: Packed) -> Targets:
        """One a pair: its two rows (index [M, 2]), and 1.0 where they have the same class."""
        if packed.structure is None or not len(packed.structure):
            return Targets(
                index=torch.zeros(0, 2, dtype=torch.long), value=torch.zeros(0), level="row"
            )
        pairs = torch.arange(len(packed.lengths)).reshape(-1, 2)
        same = packed.structure[pairs[:, 0]].to(torch.get_default_dtype())
        return Targets(index=pairs, value=same, level="row")

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M], between 0 and 4."""
        del head
        one, other = (self.vectors(hidden, rows) for rows in targets.index.unbind(1))
        losses: Tensor = ((one * other).sum(-1) - targets.value.to(one)).square()
        return losses


class ClassContrast(_Vectors):
    """Supervised contrast [M]: −log softmax of cosine over temperature, averaged over a row's partners.

    The softmax goes over all other rows of the step (Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020,
    eq. 2; for fine-tuning Gunel et al., ICLR 2021). Options ``temperature`` and ``pooling``.
    """

    pointwise = False

    def targets(self, packed: Packed) -> Targets:
        """One a row; ``extra["partners"]`` [M, M] says which others have its class, and `value` how many.

        Rows without a partner lose nothing; the weights make the mean one over the others.
        """
        labels = torch.tensor([int(label) for label in packed.labels])
        rows = torch.arange(len(labels))
        partners = (labels[:, None] == labels) & (rows[:, None] != rows)
        has = partners.any(1).to(torch.get_default_dtype())
        return Targets(
            index=rows,
            value=partners.sum(1),
            level="row",
            extra={"partners": partners},
            weight=has * len(has) / has.sum().clamp(min=1),
        )

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M], in nats."""
        del head
        if not len(targets):
            return hidden.states.new_zeros(0)
        vectors = self.vectors(hidden, targets.index)
        scores = vectors @ vectors.T / self.options["temperature"]
        itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        log = scores.masked_fill(itself, torch.finfo(scores.dtype).min).log_softmax(-1)
        partners = targets.extra["partners"].to(log)
        sums: Tensor = -(partners * log.masked_fill(itself, 0)).sum(-1)
        return sums / partners.sum(-1).clamp(min=1)
