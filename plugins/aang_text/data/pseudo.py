"""Stage 1, ``pseudo-labelled``: texts without labels, with the label of a first model where neighbours confirm it.

The first model is a linear probe (logistic regression) on the frozen encoder's features of the labelled texts. A text
is kept if the probe is sure enough and enough of its nearest neighbours, labelled or not, have the same label (HAST
asks for 15 neighbours that agree and a confidence over 0.5). Wrong labels reinforce themselves in training, so texts
that no neighbour confirms are left out. With ``refresh`` the model itself takes the probe's place as training goes on.
L labelled texts, U unlabelled ones, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor
from torch.nn import functional as F

from aang_core.batch.packing import plain_batch
from aang_core.batch.parts import Examples, ExampleSource
from aang_core.batch.protocols import Backbone, Binding, Look
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
    if options["refresh"] < 0:
        yield f"`refresh` must be at least 0 (got {options['refresh']!r})"
    for name in ("agreement", "confidence"):
        if not 0 <= options[name] <= 1:
            yield f"`{name}` must be between 0 and 1 (got {options[name]!r})"


@attrs.frozen(eq=False)
class PseudoLabels:
    """:param kept: [M] numbers of the unlabelled texts that are kept.
    :param labels: [M] their classes.
    :param confidence: [M] the first model's probability of them.
    """

    kept: Tensor
    labels: Tensor
    confidence: Tensor


class PseudoLabelled(ExampleSource):
    """Drawn by class, each class as often as any other; a row's weight is the first model's confidence in its label.

    Options: ``neighbours`` that are looked at (0 for none), the ``agreement`` that is asked of them (a share), the
    least ``confidence``, and ``refresh``: every so many steps the labels are made anew by the slow copy of the model,
    with its end-task answers in place of the probe's and its own states for the neighbours; 0 for never. Where it
    confirms no label, the earlier ones stay.

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
        self.task, self.options = task, binding.options
        self.texts: Any = task.unlabelled
        self.refresh_every = int(binding.options["refresh"])
        self.found: PseudoLabels | None = None
        if binding.backbone is None:  # asked what it provides, and for no rows
            return
        self._take(self._first(binding, binding.backbone))
        binding.remark(
            f"pseudo-labelled: {len(self)} of {len(self.texts)} texts without labels are kept, in "
            f"{len(self.by_class)} of {len(task.label_names)} classes"
        )

    def __len__(self) -> int:
        return len(self.texts) if self.found is None else len(self.found.kept)

    def examples(self) -> Iterator[tuple[Origin, Mapping[str, Any]]]:
        """The texts that are kept; all of them, where others may be kept later."""
        if not self.refresh_every:
            yield from super().examples()
            return
        for n, text in enumerate(self.texts):
            yield Origin(self.name, n, 0), text

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

    def memory(self) -> Mapping[str, Tensor]:
        """``labels`` [U], −1 where a text is left out, and ``confidence`` [U]."""
        assert self.found is not None
        labels = torch.full((len(self.texts),), -1)
        confidence = torch.zeros(len(self.texts), dtype=torch.double)
        labels[self.found.kept] = self.found.labels
        confidence[self.found.kept] = self.found.confidence
        return {"labels": labels, "confidence": confidence}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Draw by these labels from now on."""
        kept = (memory["labels"] >= 0).nonzero()[:, 0]
        labels, confidence = memory["labels"][kept], memory["confidence"][kept]
        self._take(PseudoLabels(kept=kept, labels=labels, confidence=confidence))

    def refreshed(self, look: Callable[[Sequence[Row]], Look]) -> tuple[Mapping[str, Tensor], str]:
        """The labels that the model gives now, where its own neighbours confirm them."""
        before = self.memory()
        known, seen = look(self._read(self.task.splits["train"])), look(self._read(self.texts))
        sure = seen.logits.double().softmax(-1).max(-1)
        features = [F.normalize(said.means.double(), dim=-1) for said in (known, seen)]
        found = self._confirmed(features[0], features[1], sure.indices, sure.values)
        if not len(found.kept):
            return before, "pseudo-labelled: the model confirms no label, so the earlier ones stay"
        labels = torch.full_like(before["labels"], -1)
        confidence = torch.zeros_like(before["confidence"])
        labels[found.kept], confidence[found.kept] = found.labels, found.confidence
        both = (before["labels"] >= 0) & (labels >= 0)
        changed = int((both & (before["labels"] != labels)).sum())
        return {"labels": labels, "confidence": confidence}, (
            f"pseudo-labelled: the model labels {len(found.kept)} of {len(labels)} texts; of {int(both.sum())} that "
            f"had a label before {changed} have another one now"
        )

    def _examples(self, numbers: Sequence[int]) -> tuple[Examples, list[Origin]]:
        if self.found is None:
            return records_of(self.texts, numbers), [Origin(self.name, n, 0) for n in numbers]
        texts = [int(self.found.kept[n]) for n in numbers]
        return records_of(self.texts, texts), [Origin(self.name, n, 0) for n in texts]

    def _take(self, found: PseudoLabels) -> None:
        self.found = found
        labels = found.labels.tolist()
        self.by_class = [
            [i for i, label in enumerate(labels) if label == each] for each in sorted(set(labels))
        ]
        self.pairs = LabelledPairs(labels, self.name) if len(labels) > 1 else None
        self._made.clear()  # rows have their label

    def _read(self, split: Any) -> list[Row]:
        origins = [Origin(self.name, n, 0) for n in range(len(split))]
        return self._encoder().rows(records_of(split, range(len(split))), origins)

    def _first(self, binding: Binding, backbone: Backbone) -> PseudoLabels:
        """The first model's labels, where they are confirmed."""
        known = torch.tensor(self.task.splits["train"]["label"][:])
        labelled = _features(binding, backbone, self.task.splits["train"])
        others = _features(binding, backbone, self.texts)
        found = self._confirmed(labelled, others, *probed(labelled, known, others))
        if not len(found.kept):
            options = self.options
            raise TaskError(
                f"pseudo-labelled: no label of {len(others)} texts is confirmed by {options['neighbours']} neighbours "
                f"at the agreement {options['agreement']:g} with a confidence of {options['confidence']:g}; lower one "
                "of them under [primitives.pseudo-labelled], or take a space without it"
            )
        return found

    def _confirmed(
        self, labelled: Tensor, others: Tensor, labels: Tensor, confidence: Tensor
    ) -> PseudoLabels:
        """Of the labels [U] of texts with the features [U, H] those that are sure and that neighbours have, too."""
        known = torch.tensor(self.task.splits["train"]["label"][:])
        features, every = torch.cat([labelled, others]), torch.cat([known, labels])
        agree = confirmed(features, every, int(self.options["neighbours"]))[len(known) :]
        fit = (agree >= self.options["agreement"]) & (confidence >= self.options["confidence"])
        kept = fit.nonzero()[:, 0]
        return PseudoLabels(kept=kept, labels=labels[kept], confidence=confidence[kept])

    def _make(self, numbers: Sequence[int]) -> list[Row]:
        rows = super()._make(numbers)
        if self.found is None:
            return rows
        labels, sure = self.found.labels, self.found.confidence
        return [
            attrs.evolve(row, label=int(labels[n]), weight=float(sure[n]))
            for row, n in zip(rows, numbers, strict=True)
        ]


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
