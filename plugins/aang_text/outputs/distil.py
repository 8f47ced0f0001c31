"""Stage 4, ``distil``: answer as a larger classifier does, and see the texts of a step as far apart as it does.

The classifier (`--teacher-model`) has the task's classes and has answered every text of the data source before the
first step (`aang_text.answers`). Its answers are about the text before the transform. Soft answers: Hinton, Vinyals and
Dean, "Distilling the Knowledge in a Neural Network", 2015. Distances: Park et al., "Relational Knowledge Distillation",
CVPR 2019 (RKD-D). C classes, M targets (one a row), H hidden size of the encoder, G that of the classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.parts import backbone_of
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import SINGLE, Hidden, Packed, Targets
from aang_core.errors import TaskError
from aang_text.answers import answers_of

_LEAST = 1e-6


def faults(options: Mapping[str, Any]) -> Iterable[str]:
    """What is wrong with values of ``[primitives.distil]``."""
    if not options["temperature"] > 0:
        yield f"`temperature` must be over 0 (got {options['temperature']!r})"
    if options["relations"] < 0:
        yield f"`relations` must be at least 0 (got {options['relations']!r})"


class Distil:
    """T² times the divergence [M] from the classifier's answer, and `relations` times the error of the distances.

    The answers are softened by ``temperature`` T on both sides, and T² keeps their gradients as large as at T = 1
    (Hinton et al., §2). The model answers through the end-task's own head. A distance is one between the means of two
    rows' states, over the mean distance of the step, so that the two hidden sizes need not be equal; its error is
    Huber's, and a row's is the mean over the others (Park et al., eqs. 6 to 9). Options: ``temperature``;
    ``relations``, 0 for none; ``teacher_model``, which the run's setting of that name gives.

    :raises TaskError: where there is no such model, or the data source does not hand out its texts.
    :raises ModelError: as in `aang_text.answers.Classifier`.
    """

    layout = SINGLE
    row_multiple = 1
    trains_end_task_head = True

    def __init__(self, binding: Binding) -> None:
        self.task, self.options = binding.task, binding.options
        self.backbone = backbone_of(binding, "distil")
        if not self.options["teacher_model"]:
            raise TaskError(
                "distil: expected a model to learn from, found none; give --teacher-model"
            )
        source: Any = binding.source
        if not hasattr(source, "examples"):
            raise TaskError(
                "distil: the data source does not hand out its texts for another model to read; take another one"
            )
        examples: dict[Any, Mapping[str, Any]] = dict(source.examples())
        answers = answers_of(binding, str(self.options["teacher_model"]), list(examples.values()))
        self.places = {origin: place for place, origin in enumerate(examples)}
        self.logits, self.features = answers.logits, answers.features
        self.relations = float(self.options["relations"])
        if self.relations and not self.features.shape[1]:
            binding.remark("distil: the teacher model has no states of positions: no relations")
            self.relations = 0.0
        self.pointwise = not self.relations
        # of two rows the distance over its mean is always 1
        self.min_rows = 3 if self.relations else 1

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, for people who look at targets."""
        return self.task.label_names

    def targets(self, packed: Packed) -> Targets:
        """One a row: the classifier's softened answer ([M, C]) and, for the relations, its ``features`` [M, G]."""
        places = torch.tensor([self.places[origin] for origin in packed.origins])
        return Targets(
            index=torch.arange(len(places)),
            value=(self.logits[places] / self.options["temperature"]).softmax(-1),
            level="row",
            extra={"features": self.features[places]} if self.relations else {},
        )

    def head(self) -> nn.Module:
        """As the end-task's; the core gives `losses` the end-task's own."""
        head: nn.Module = self.backbone.end_task_head(self.task)
        return head

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M], in nats; 0 where the model says and sees the same."""
        rows = targets.index.to(hidden.states.device)
        temperature = self.options["temperature"]
        logits = head(hidden, rows)
        said = targets.value.to(logits)
        log = F.log_softmax(logits / temperature, -1)
        losses: Tensor = (torch.special.xlogy(said, said) - said * log).sum(-1) * temperature**2
        if self.relations and len(rows) > 1:
            own = distances(hidden.means(rows))
            gaps = F.smooth_l1_loss(
                own, distances(targets.extra["features"].to(own)), reduction="none"
            )
            losses = losses + self.relations * gaps.sum(-1) / (len(rows) - 1)
        return losses

    def state(self) -> Mapping[str, Tensor]:
        """Nothing is fitted."""
        return {}


def distances(vectors: Tensor) -> Tensor:
    """[M, M] the distances of vectors [M, H] over their mean (of a vector to all others)."""
    found = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    mean = found.sum() / (len(vectors) * (len(vectors) - 1))
    return found / mean.clamp(min=_LEAST)
