"""What `TextClassifier` is given: lists, arrays and tables in; checked columns, labels and data sets out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from aang_core.data.readers import Faults, Table
from aang_core.data.spec import LABEL
from aang_core.data.task import inputs_of
from aang_core.registry.records import BackboneKind
from aang_core.registry.registry import registry_named

if TYPE_CHECKING:
    from datasets import Dataset

Columns = Mapping[str, list[Any]]
"""Values by the name that the encoder has for the column."""


def kind_of(plugins: Sequence[str], model: str) -> BackboneKind:
    """The kind of encoder that `model` is; of the usual one where it is empty."""
    registry = registry_named(plugins)
    return registry.backbone_for(model or registry.usual_model())


def columns_of(given: Any, what: str, kind: BackboneKind) -> Columns:
    """Rows of any of the forms that `TextClassifier` takes, as columns, checked.

    :raises ValueError: for no rows, or another number of columns than the encoder reads.
    :raises TaskError: names the rows that are empty or no texts.
    """
    if isinstance(given, (str, bytes)):
        raise ValueError(f"{what} is one text; expected a list of texts, one a row")
    if hasattr(given, "iloc") and hasattr(given, "columns"):  # a DataFrame
        parts = [given.iloc[:, i].tolist() for i in range(given.shape[1])]
    else:
        values = given.tolist() if hasattr(given, "tolist") else list(given)
        several = bool(values) and all(isinstance(value, (list, tuple)) for value in values)
        parts = [list(part) for part in zip(*values, strict=True)] if several else [values]
    reads = [name for name in kind.reads if name not in kind.training_only]
    if not 1 <= len(parts) <= len(reads) or not parts[0]:
        raise ValueError(
            f"{what}: expected at least one row of 1 to {len(reads)} columns ({', '.join(reads)}), found "
            f"{len(parts[0]) if parts else 0} rows of {len(parts)}"
        )
    columns = {
        name: [None if _missing(value) else value for value in part]
        for name, part in zip(reads, parts, strict=False)
    }
    table = Table(where=what, columns=columns, numbers=range(1, 1 + len(parts[0])), by_line=False)
    faults = Faults()
    checked = inputs_of(table, {name: name for name in columns}, "class", None, faults)
    faults.hints = dict.fromkeys(["leave out rows that lack a text, of X and of y alike"])
    faults.raise_any(what)
    return checked


def _missing(value: Any) -> bool:
    """Whether a cell is one of the ways in which pandas and NumPy say that there is no value."""
    nothing = value is None or (isinstance(value, float) and math.isnan(value))
    return nothing or type(value).__name__ in ("NAType", "NaTType")


def labelled_rows(X: Any, y: Any, what: str, kind: BackboneKind) -> tuple[Columns, NDArray[Any]]:
    """Rows and their labels [R]."""
    if y is None:
        raise ValueError("TextClassifier requires y to be passed, but the target y is None")
    labels = column_or_1d(y, warn=True)
    if labels.dtype == object and (lacking := [n for n, v in enumerate(labels) if _missing(v)]):
        raise ValueError(
            f"y has no class in {len(lacking)} rows, the first is row {lacking[0] + 1}; leave these rows out, "
            "or give their texts as unlabelled="
        )
    check_classification_targets(labels)
    rows = columns_of(X, what, kind)
    count = len(next(iter(rows.values())))
    if count != len(labels):
        raise ValueError(f"{what} has {count} rows, and its y {len(labels)} labels")
    return rows, labels


def validation_rows(
    given: tuple[Any, Any], classes: NDArray[Any], kind: BackboneKind, reads: Sequence[str]
) -> tuple[Columns, NDArray[np.intp]]:
    """Dev's rows and the numbers [R] of their classes among `classes`.

    :param reads: the columns of X.
    :raises ValueError: for a class that does not occur in y, and for other columns.
    """
    rows, labels = labelled_rows(*given, "validation", kind)
    strange = sorted(set(labels.tolist()) - set(classes.tolist()), key=str)
    if strange:
        raise ValueError(f"validation has the class {strange[0]!r}, which does not occur in y")
    if tuple(rows) != tuple(reads):
        raise ValueError(unlike("validation", rows, reads))
    return rows, np.searchsorted(classes, labels)


def unlike(what: str, found: Columns, expected: Sequence[str] | Columns) -> str:
    """Says that rows have other columns than those of the fit."""
    return f"{what} has the columns {', '.join(found)}; expected {', '.join(expected)} as in fit"


def selected(rows: Columns, chosen: Sequence[int]) -> Columns:
    """The chosen rows, in this order."""
    return {name: [values[row] for row in chosen] for name, values in rows.items()}


def dataset_of(rows: Columns, codes: NDArray[np.intp] | None = None) -> Dataset:
    """The rows as a split of a `Task`, with their labels [R] where there are any."""
    from datasets import Dataset

    labels = {} if codes is None else {LABEL: codes.tolist()}
    return Dataset.from_dict({**rows, **labels})
