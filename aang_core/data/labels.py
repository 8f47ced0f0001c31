"""Labels of step 2. In: raw labels of each split. Out: the kind of task, its classes, and encoded labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from aang_core.data.metrics import METRICS
from aang_core.data.readers import DROP_HINT, UNLABELLED_HINT, Faults, Table
from aang_core.data.spec import TaskSpec
from aang_core.errors import TaskError, nearest
from aang_core.files import json_of

SHOWN_NAMES = 20


@attrs.frozen(eq=False, kw_only=True)
class Labels:
    """Encoded labels.

    :param names: the classes in order; empty for regression.
    :param splits: labels by split, in the form that `Task.splits` describes; a split without labels is
        absent.
    """

    kind: str
    names: tuple[str, ...]
    splits: Mapping[str, list[Any]]
    remarks: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class RawLabels:
    """One split's labels as they were read. `values` holds None where there is none."""

    table: Table
    values: list[Any]
    class_names: tuple[str, ...] = ()


def raw_labels(table: Table, column: str, split: str, faults: Faults) -> RawLabels | None:
    """The labels of one split, or None where it has none: then it gives predictions only.

    :param split: ``test`` may be unlabelled. A declared class index of −1 counts as missing, as in the published test
        splits of GLUE.
    """
    if column not in table.columns:
        return None
    values = label_values(table, column)
    if split == "test" and all(value is None for value in values):
        return None
    hints = (DROP_HINT, UNLABELLED_HINT) if split == "train" else (DROP_HINT,)
    for row, value in enumerate(values):
        if value is None:
            faults.add(table.at(row), f"column {column!r} holds no label", *hints)
    return RawLabels(table, values, table.class_names.get(column, ()))


def label_values(table: Table, column: str) -> list[Any]:
    """The labels as they were read, with None where a row has none."""
    indices = column in table.class_names
    return [None if _missing(value, indices) else value for value in table.columns[column]]


def _missing(value: Any, indices: bool) -> bool:
    if value is None or (indices and value == -1):
        return True
    if isinstance(value, str):
        return value.strip().casefold() in ("", "nan")
    return isinstance(value, float) and math.isnan(value)


def label_key(value: Any) -> str:
    """The name of a raw label: strings as they are, 1 and 1.0 both ``1``, true as ``true``."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number(value: Any) -> float | None:
    """The value as a number, or None; infinities are numbers here, so that they are named as faults."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def infer_kind(spec: TaskSpec, train: Sequence[Any]) -> tuple[str, tuple[str, ...]]:
    """The kind of task, and remarks: what ``task.toml`` says, or what the training labels look like.

    Lists are several labels at once; numbers of which at least one has decimals, or a correlation as
    metric, make a regression; everything else names classes.
    """
    if spec.kind:
        return spec.kind, ()
    lists = [list(map(label_key, v)) for v in train if isinstance(v, (list, tuple))]
    if lists:
        repeating = sum(len(set(names)) < len(names) for names in lists)
        remark = (
            f"labels are lists, so each text has several labels at once; {repeating} of {len(lists)} lists repeat "
            'one: if they hold a label a word, say kind = "token" in task.toml'
        )
        return "multilabel", (remark,) if repeating else ()
    if spec.metric in METRICS["regression"]:
        return "regression", ()
    numbers = [_number(value) for value in train]
    if (
        train
        and all(n is not None for n in numbers)
        and any(n != int(n) for n in numbers if n is not None)
    ):
        remark = 'labels are numbers with decimals, so this is a regression; kind = "class" says otherwise'
        return "regression", (remark,)
    return "class", ()


def encode_labels(spec: TaskSpec, raw: Mapping[str, RawLabels], faults: Faults) -> Labels:
    """Infer the kind and the classes from the training labels, and encode every split.

    :param raw: by split; ``train`` first and always there. Missing labels were noted in `faults` before.
    :raises TaskError: where the training split has fewer than two classes, or ``label_names`` does not fit.
    """
    train = [value for value in raw["train"].values if value is not None]
    kind, remarks = infer_kind(spec, train)
    if kind == "regression":
        splits = {name: _regression(labels, faults) for name, labels in raw.items()}
        return Labels(kind=kind, names=(), splits=splits, remarks=remarks)
    several = kind in ("multilabel", "token")
    keys = {name: _keys(labels, several, faults) for name, labels in raw.items()}
    order = _ordered(key for row in keys["train"] if row is not None for key in row)
    names = _named(spec, order, raw["train"].class_names, keys)
    if len(order) < 2 and not faults.count and kind != "multilabel":
        raise TaskError(
            f"{raw['train'].table.where} holds {len(order)} class(es), {order}; expected at least two"
        )
    index = {key: i for i, key in enumerate(order)}
    splits = {name: _encode(raw[name].table, keys[name], index, kind, faults) for name in raw}
    return Labels(kind=kind, names=names, splits=splits, remarks=remarks)


def _regression(labels: RawLabels, faults: Faults) -> list[float]:
    numbers = []
    for row, value in enumerate(labels.values):
        number = _number(value)
        if value is not None and (number is None or not math.isfinite(number)):
            faults.add(labels.table.at(row), f"expected a finite number as label, found {value!r}")
        numbers.append(math.nan if number is None else number)
    return numbers


def _keys(labels: RawLabels, several: bool, faults: Faults) -> list[list[str] | None]:
    """The label names of each row, one for classes; None where the row is faulty."""
    rows: list[list[str] | None] = []
    for row, value in enumerate(labels.values):
        items = _listed(value) if several else [value]
        if value is None:
            rows.append(None)
        elif items is None or any(not isinstance(item, (str, int, float)) for item in items):
            form = "a list of labels (in csv and tsv: a JSON list)" if several else "one label"
            faults.add(labels.table.at(row), f"expected {form}, found {str(value)[:60]!r}")
            rows.append(None)
        else:
            rows.append([label_key(item) for item in items])
    return rows


def _listed(value: Any) -> list[Any] | None:
    if isinstance(value, str):
        try:
            value = json_of(value)
        except ValueError:
            return None
    return list(value) if isinstance(value, (list, tuple)) else None


def _ordered(keys: Iterable[str]) -> list[str]:
    """Distinct labels, numbers by size and words by alphabet."""
    distinct = sorted(set(keys))
    numbers = {key: _number(key) for key in distinct}
    if all(number is not None for number in numbers.values()):
        distinct.sort(key=lambda key: numbers[key] or 0.0)
    return distinct


def _named(
    spec: TaskSpec,
    order: Sequence[str],
    declared: Sequence[str],
    keys: Mapping[str, Sequence[Sequence[str] | None]],
) -> tuple[str, ...]:
    """The classes' names for people: ``label_names``, else those that the data set declares."""
    present = {key for rows in keys.values() for row in rows if row is not None for key in row}
    for key in spec.label_names:
        if key not in present:
            hint = nearest(key, present)
            raise TaskError(f"{spec.path}: label_names maps {key!r}, which no split holds{hint}")
    given = {str(i): name for i, name in enumerate(declared)} | dict(spec.label_names)
    names = tuple(given.get(key, key) for key in order)
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise TaskError(
            f"{spec.path}: label_names gives several labels the name {shown_names(twice)}"
        )
    return names


def _encode(
    table: Table,
    keys: Sequence[Sequence[str] | None],
    index: Mapping[str, int],
    kind: str,
    faults: Faults,
) -> list[Any]:
    encoded: list[Any] = []
    for row, names in enumerate(keys):
        strange = [key for key in names or () if key not in index]
        if strange:
            known = shown_names(sorted(index))
            faults.add(
                table.at(row), f"label {strange[0]!r} does not occur in train (which has: {known})"
            )
        found = [index[key] for key in names or () if key in index]
        if kind == "class":
            encoded.append(found[0] if found else -1)  # −1 never leaves: it goes with a noted fault
        elif kind == "token":
            encoded.append(found)
        else:
            encoded.append([int(i in found) for i in range(len(index))])
    return encoded


def shown_names(names: Sequence[str]) -> str:
    """The first `SHOWN_NAMES`, and how many more there are."""
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
