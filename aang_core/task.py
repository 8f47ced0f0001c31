"""Step 2 of 9. In: RunConfig. Out: Task: splits, labels, metric and external corpora."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from datasets import Dataset

KINDS = ("class", "regression", "multilabel", "token")
METRICS = ("accuracy", "f1", "pearson", "spearman")


@attrs.frozen(eq=False, kw_only=True)
class Task:
    """An end-task.

    :param kind: one of `KINDS`.
    :param metric: one of `METRICS`, the one that dev chooses by; ``f1`` is macro-F1.
    :param splits: ``train``, ``dev`` and, where there is one, ``test``; columns are the roles that the encoder
        reads (``text``, ``text_pair``, …) and ``label``: an int (index into `label_names`) for classes, a float for
        regression, a list of ints for multilabel and token tasks. A split without the column ``label`` is
        unlabelled.
    :param label_names: the classes in order; empty for regression.
    :param unlabelled: training examples whose labels the run may not see; their texts remain data.
    :param external: corpora by data source name (``in-domain``), each a file or folder.
    :param remarks: what the user should know (a split that was made, rows that were dropped).
    """

    name: str
    kind: str
    metric: str
    splits: Mapping[str, Dataset]
    label_names: tuple[str, ...] = ()
    unlabelled: Dataset | None = None
    external: Mapping[str, Path] = attrs.field(factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def num_outputs(self) -> int:
        """C, the width of the end-task's logits: one per class, or 1 for regression."""
        return len(self.label_names) if self.kind != "regression" else 1
