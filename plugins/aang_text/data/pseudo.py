"""Stage 1, ``pseudo-labelled``: texts without labels, with the label of a first model where neighbours confirm it.

The first model is a linear probe (logistic regression) on the frozen encoder's features of the labelled texts. A text
is kept if the probe is sure enough and enough of its nearest neighbours, labelled or not, have the same label (HAST
asks for 15 neighbours that agree and a confidence over 0.5). Wrong labels reinforce themselves in training, so texts
that no neighbour confirms are left out. L labelled texts, U unlabelled ones, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

from aang_core.batch.packing import plain_batch
from aang_core.batch.parts import Examples, ExampleSource
from aang_core.batch.protocols import Backbone, Binding
from aang_core.batch.rows import Layout, Origin, Row
from aang_core.errors import TaskError
from aang_core.randomness import evaluating
from aang_text.data.labelled_pairs import LabelledPairs
from aang_text.data.sources import drawn_pairs, records_of

_BATCH = 64
_CHUNK = 1024
_ITERATIONS = 1000


def faults(options: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with values of ``[primitives.pseudo-labelled]``."""
    if options["neighbours"] < 0:
        yield f"`neighbours` must be at least 0 (got {options['neighbours']!r})"
    for name in ("agreement", "confidence"):
        if not 0 <= options[name] <= 1:
            yield f"`{name}` must be between 0 and 1 (got {options[name]!r})"


@attrs.frozen(eq=False)
class PseudoLabels:
    """:param kept: [M] numbers of the unlabelled texts that are kept.
    :param labels: [M] their classes.
    :param confidence: [M] the probe's probability of them.
    """

    kept: Tensor
    labels: Tensor
    confidence: Tensor


class PseudoLabelled(ExampleSource):
    """Drawn by class, each class as often as any other; a row's weight is the first model's confidence in its label.

    Options: ``neighbours`` that are looked at (0 for none), the ``agreement`` that is asked of them (a share), and the
    least ``confidence``.

    :raises TaskError: where the task has no unlabelled texts, or no label of any is confirmed.
    """

    def __init__(self, binding: Binding) -> None:
        task = binding.task
        if task.kind != "class" or task.unlabelled is None or not len(task.unlabelled):
            raise TaskError(
                "pseudo-labelled: expected a task of classes with training texts whose labels are not known, found "
                f"none for the task {task.name!r}; keep fewer labels with --train-rows N"
            )
        super().__init__("pseudo-labelled", binding.backbone, frozenset())
        self.texts, self.found = task.unlabelled, None
        if binding.backbone is None:  # asked what it provides, and for no rows
            return
        self.found = _found(binding, binding.backbone)
        labels = self.found.labels.tolist()
        self.by_class = [
            [i for i, label in enumerate(labels) if label == each] for each in sorted(set(labels))
        ]
        self.pairs = LabelledPairs(labels, self.name) if len(labels) > 1 else None
        binding.remark(
            f"pseudo-labelled: {len(labels)} of {len(task.unlabelled)} texts without labels are kept, in "
            f"{len(self.by_class)} of {len(task.label_names)} classes"
        )

    def __len__(self) -> int:
        return len(self.texts) if self.found is None else len(self.found.kept)

    def draw(self, layout: Layout, count: int, generator: Generator) -> list[Row]:
        """`count` rows, each of a class drawn uniformly; in pairs by class for the relation ``same-label``.

        :raises PluginError: for other layouts than ``single``.
        """
        if layout.relation == "same-label" and self.pairs is not None:
            return drawn_pairs(self.pairs, self._rows, count, generator)
        if layout.kind != "single":
            return super().draw(layout, count, generator)
        classes = torch.randint(len(self.by_class), (count,), generator=generator).tolist()
        chosen = [self.by_class[c] for c in classes]
        return self._rows(
            [own[int(torch.randint(len(own), (), generator=generator))] for own in chosen]
        )

    def _examples(self, numbers: Sequence[int]) -> tuple[Examples, list[Origin]]:
        if self.found is None:
            return records_of(self.texts, numbers), [Origin(self.name, n, 0) for n in numbers]
        texts = [int(self.found.kept[n]) for n in numbers]
        return records_of(self.texts, texts), [Origin(self.name, n, 0) for n in texts]

    def _make(self, numbers: Sequence[int]) -> list[Row]:
        rows = super()._make(numbers)
        if self.found is None:
            return rows
        labels, sure = self.found.labels, self.found.confidence
        return [
            attrs.evolve(row, label=int(labels[n]), weight=float(sure[n]))
            for row, n in zip(rows, numbers, strict=True)
        ]


def _found(binding: Binding, backbone: Backbone) -> PseudoLabels:
    """The first model's labels, where they are confirmed."""
    task, options = binding.task, binding.options
    assert task.unlabelled is not None
    known = torch.tensor(task.splits["train"]["label"][:])
    labelled = _features(binding, backbone, task.splits["train"])
    others = _features(binding, backbone, task.unlabelled)
    labels, confidence = probed(labelled, known, others)
    agree = confirmed(
        torch.cat([labelled, others]), torch.cat([known, labels]), int(options["neighbours"])
    )[len(known) :]
    fit = (agree >= options["agreement"]) & (confidence >= options["confidence"])
    kept = fit.nonzero()[:, 0]
    if not len(kept):
        raise TaskError(
            f"pseudo-labelled: no label of {len(others)} texts is confirmed by {options['neighbours']} neighbours at "
            f"the agreement {options['agreement']:g} with a confidence of {options['confidence']:g}; lower one of them "
            "under [primitives.pseudo-labelled], or take a space without it"
        )
    return PseudoLabels(kept=kept, labels=labels[kept], confidence=confidence[kept])


@torch.no_grad()
def _features(binding: Binding, backbone: Backbone, split: Any) -> Tensor:
    """[rows, H] of length 1, in fp64 on the CPU: the mean of each text's states, dropout off."""
    device = next(backbone.body.parameters()).device
    found: list[Tensor] = []
    with evaluating(backbone.body):
        for start in range(0, len(split), _BATCH):
            numbers = range(start, min(start + _BATCH, len(split)))
            origins = [Origin("pseudo-labelled", n, 0) for n in numbers]
            rows = backbone.rows(records_of(split, list(numbers)), origins)
            hidden = backbone.encode(plain_batch(rows).to(device))
            found.append(hidden.means(torch.arange(len(rows), device=device)).double().cpu())
            binding.progress("reading texts for pseudo-labels", numbers.stop, len(split))
    return F.normalize(torch.cat(found), dim=-1)


def probed(labelled: Tensor, known: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """[U] classes and [U] probabilities by a probe fitted on features [L, H] with the classes [L]."""
    from sklearn.linear_model import LogisticRegression

    present = known.unique()
    if len(present) == 1:
        return known[:1].expand(len(others)).clone(), torch.ones(len(others), dtype=torch.double)
    fitted = LogisticRegression(max_iter=_ITERATIONS).fit(labelled.numpy(), known.numpy())
    chances: NDArray[np.float64] = fitted.predict_proba(others.numpy())
    best = torch.as_tensor(chances).max(-1)
    return torch.as_tensor(fitted.classes_)[best.indices], best.values


def confirmed(features: Tensor, labels: Tensor, neighbours: int) -> Tensor:
    """[n] the share of each text's nearest neighbours, by cosine, that have its label; 1 where none are looked at.

    :param features: [n, H] of length 1.
    """
    neighbours = min(neighbours, len(features) - 1)
    if neighbours <= 0:
        return torch.ones(len(features), dtype=torch.double)
    shares = []
    for start in range(0, len(features), _CHUNK):  # n² cosines would not fit for many texts
        own = torch.arange(start, min(start + _CHUNK, len(features)))
        cosines = features[own] @ features.T
        cosines[torch.arange(len(own)), own] = -2.0  # itself
        nearest = cosines.topk(neighbours, -1).indices
        shares.append((labels[nearest] == labels[own][:, None]).double().mean(-1))
    return torch.cat(shares)
