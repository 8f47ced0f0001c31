"""Step 2 of 9. In: RunConfig. Out: Task: splits, labels, metric and external corpora."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from aang_core.config.settings import UNLABELLED
from aang_core.data.duplicates import rows_seen_in, texts_of
from aang_core.data.labels import Labels, encode_labels, label_values, raw_labels
from aang_core.data.metrics import METRICS
from aang_core.data.readers import DROP_HINT, SHOWN_FAULTS, SUFFIXES, Faults, Table, file_and_column
from aang_core.data.spec import HF, LABEL, MEMORY, TaskSpec, check_columns, read_spec, read_splits
from aang_core.data.splits import Rows, with_missing_splits
from aang_core.errors import TaskError, nearest
from aang_core.registry.records import TaskKind, load_factory
from aang_core.registry.registry import Registry

if TYPE_CHECKING:
    from datasets import Dataset

FOUND_UNASKED = ("in-domain",)
"""Corpora that lie in a task's folder as NAME.txt and need no mention."""


@attrs.frozen(eq=False, kw_only=True)
class Task:
    """An end-task.

    :param kind: a key of `metrics.METRICS`.
    :param metric: one of its kind's in `metrics.METRICS`, the one that dev chooses by; ``f1`` is macro-F1.
    :param splits: ``train``, ``dev`` and, where there is one, ``test``; columns are the roles that the encoder
        reads (``text``, ``text_pair``, …) and ``label``: an int (index into `label_names`) for classes, a float for
        regression, C zeros and ones for multilabel, one int a word for token tasks (whose first input is a list of
        words). A split without the column ``label`` is unlabelled.
    :param label_names: the classes in order; empty for regression.
    :param unlabelled: training examples whose labels the run may not see; their texts remain data.
    :param external: corpora by data source name (``in-domain``), each a file or folder, a table's column as
        ``FILE:COLUMN``, or ``hf:NAME``.
    :param remarks: what the user should know (a split that was made, rows that were dropped).
    :param auxiliary: further tasks of the run by name; their labels are data for auxiliary objectives.
    :param dropped: rows that were left out for an empty cell: split as it was read → column → their lines in the file
        (or row numbers), from 1. A row counts at its first empty column.
    """

    name: str
    kind: str
    metric: str
    splits: Mapping[str, Dataset]
    label_names: tuple[str, ...] = ()
    unlabelled: Dataset | None = None
    external: Mapping[str, Path] = attrs.field(factory=dict)
    remarks: tuple[str, ...] = ()
    auxiliary: Mapping[str, Task] = attrs.field(factory=dict)
    dropped: Mapping[str, Mapping[str, Sequence[int]]] = attrs.field(factory=dict)

    @property
    def capabilities(self) -> frozenset[str]:
        """What primitives may require of the task: ``task:KIND``, and ``task:unlabelled`` where it has such texts."""
        unlabelled = self.unlabelled is not None and len(self.unlabelled) > 0
        return frozenset({f"task:{self.kind}", *(["task:unlabelled"] if unlabelled else [])})

    @property
    def num_outputs(self) -> int:
        """C, the width of the end-task's logits: one per class, or 1 for regression."""
        return len(self.label_names) if self.kind != "regression" else 1


def load_task(
    name: str,
    *,
    reads: Sequence[str],
    registered: Mapping[str, Callable[[], Task]],
    external: Mapping[str, str],
    drop_empty: bool = False,
    columns: Mapping[str, str] | None = None,
    unlabelled: str = UNLABELLED[0],
) -> Task:
    """Find and read a task.

    :param name: a registered name, a folder, a ``task.toml``, one data file, or ``hf:NAME[:CONFIG]``.
    :param reads: the input columns that the encoder reads, the required one first.
    :param registered: factories of registered tasks by name.
    :param external: corpora by data source, over those that the task brings; relative to here.
    :param drop_empty: leave out rows with an empty input or label, and say how many, instead of refusing them.
    :param columns: the task's columns by role, over those of its ``task.toml``.
    :param unlabelled: ``empty``: training rows without a label are texts without labels, not faults.
    :raises TaskError: where there is no such task, or with every fault of its files.
    """
    corpora = _corpora(external, Path(), "--external")
    if name not in registered:
        spec = _find(name, reads, registered)
        said = attrs.evolve(
            spec,
            drop_empty=drop_empty or spec.drop_empty,
            columns={**spec.columns, **_known(columns or {}, reads)},
            unlabelled=spec.unlabelled if unlabelled == UNLABELLED[0] else unlabelled,
        )
        task = _read_task(said, reads)
    elif columns:
        raise TaskError(
            f"the task {name!r} is a registered one, whose columns have no other names; leave out columns"
        )
    else:
        task = registered[name]()
        if Path(name).exists():
            remark = f"{name!r} is a registered task; for the folder here say ./{name}"
            task = attrs.evolve(task, remarks=(*task.remarks, remark))
    return attrs.evolve(task, external={**task.external, **corpora})


def _known(columns: Mapping[str, str], reads: Sequence[str]) -> Mapping[str, str]:
    """:raises TaskError: for a role that no column can play."""
    roles = (*reads, LABEL)
    for role in columns:
        if role not in roles:
            raise TaskError(
                f"columns (--column ROLE=NAME): {role!r} is no role{nearest(role, roles)}; expected one of: "
                f"{', '.join(roles)}"
            )
    return columns


def check_given(task: Task, reads: Sequence[str]) -> None:
    """Check the splits of a task that was made in Python, as far as a file's would be.

    :param reads: as in `load_task`.
    :raises TaskError: where train or dev is missing or has no row, or a column; names them all.
    """
    faults = Faults()
    for split in ("train", "dev"):
        if not len(task.splits.get(split, ())):
            faults.add(f"split {split!r}", "expected at least one row, found none")
    for split, rows in task.splits.items():
        needed = (reads[0], LABEL) if split != "test" else (reads[0],)
        for column in needed:
            if column not in rows.column_names:
                found = ", ".join(map(repr, rows.column_names))
                faults.add(f"split {split!r}", f"expected the column {column!r}, found {found}")
    faults.raise_any(f"the task {task.name!r}, given as an object,")


def registered_tasks(registry: Registry) -> dict[str, Callable[[], Task]]:
    """Name → what loads the task, for `load_task`; nothing is imported before it is called."""
    return {name: partial(_load_task, entry.record) for name, entry in registry.tasks.items()}


def _load_task(kind: TaskKind) -> Task:
    task: Task = load_factory(kind.factory)()
    return task


def _find(name: str, reads: Sequence[str], registered: Mapping[str, Any]) -> TaskSpec:
    """The specification behind a name that is not registered."""
    if name.startswith(HF):
        short = name.removeprefix(HF).rstrip("/").rsplit("/", 1)[-1].replace(":", "-")
        return TaskSpec(folder=Path(), data=name, name=short)
    if name.startswith(MEMORY):
        raise TaskError(
            f"the task {name!r} was given in Python as an object and lies on no disk, so it cannot be read again; give "
            "the object anew, to a new run (`aang_core.run(task=...)`)"
        )
    path = Path(name).expanduser()
    if path.is_dir():
        toml = path / "task.toml"
        return read_spec(toml, reads) if toml.is_file() else TaskSpec(folder=path)
    if path.is_file() and path.suffix == ".toml":
        return read_spec(path, reads)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return TaskSpec(folder=path.parent, data=path.name, name=path.stem)
    what = (
        "is no task file" if path.exists() else "is neither a folder, a file nor a registered task"
    )
    raise TaskError(
        f"task {name!r} {what}{nearest(name, registered) or '.'} Expected a folder with train, dev and "
        f"test, a task.toml, a data file ({', '.join(SUFFIXES)}), hf:NAME[:CONFIG], or one of: "
        + (", ".join(sorted(registered)) or "(no task is registered)")
    )


def _corpora(given: Mapping[str, str], folder: Path, where: str) -> dict[str, Path]:
    """External corpora as paths; every missing one is named.

    :raises TaskError: where a file or folder does not exist.
    """
    paths = {
        name: Path(value) if value.startswith(HF) else folder / Path(value).expanduser()
        for name, value in given.items()
    }
    missing = [
        f"{name} = {given[name]!r} ({path.absolute()})"
        for name, path in paths.items()
        if not given[name].startswith(HF) and not file_and_column(path)[0].exists()
    ]
    if missing:
        raise TaskError(f"{where}: no such file or folder: {'; '.join(missing)}")
    return paths


def _read_task(spec: TaskSpec, reads: Sequence[str]) -> Task:
    """Everything that a specification leads to, read, checked and, where needed, split."""
    name = spec.name or spec.folder.resolve().name
    faults = Faults()
    tables = read_splits(spec, faults)
    faults.raise_any(f"task {name!r}")
    roles = {reads[0]: check_columns(list(tables.values()), spec, reads[0], required=True)}
    for role in reads[1:]:
        if column := check_columns(list(tables.values()), spec, role, required=False):
            roles[role] = column
    label = spec.columns.get(LABEL, LABEL)
    check_columns([table for split, table in tables.items() if split != "test"], spec, LABEL, True)
    tables, dropped = _without_empty_rows(spec, tables, roles, label)
    hidden = _without_labels(spec, tables, label)
    labels = _labels(spec, tables, label, faults)
    rows = {
        split: inputs_of(table, roles, labels.kind, labels.splits.get(split), faults)
        for split, table in tables.items()
    }
    texts = inputs_of(hidden, roles, labels.kind, None, faults) if hidden else {}
    faults.raise_any(f"task {name!r}")
    for split, values in labels.splits.items():
        rows[split][LABEL] = values
    unlabelled, counted = _unseen(tables["train"].where, texts, rows.values())
    made, remarks = with_missing_splits(rows, labels)
    kept = tuple(remark for table in tables.values() for remark in table.remarks)
    return Task(
        name=name,
        kind=labels.kind,
        metric=_metric(spec, labels.kind),
        splits=_datasets(made),
        label_names=labels.names,
        unlabelled=unlabelled,
        external=_external(spec),
        remarks=kept + labels.remarks + counted + remarks,
        dropped=dropped,
    )


def _external(spec: TaskSpec) -> dict[str, Path]:
    """The corpora that a task brings, with those that lie in its folder unasked."""
    external = _corpora(spec.external, spec.folder, str(spec.path))
    for source in FOUND_UNASKED:
        corpus = spec.folder / f"{source}.txt"
        if source not in external and not spec.data.startswith(HF) and corpus.is_file():
            external[source] = corpus
    return external


def _without_empty_rows(
    spec: TaskSpec, tables: Mapping[str, Table], roles: Mapping[str, str], label: str
) -> tuple[dict[str, Table], dict[str, dict[str, list[int]]]]:
    """The tables without rows that have an empty cell, where these are to be left out; and `Task.dropped`."""
    if not spec.drop_empty:
        return dict(tables), {}
    kept: dict[str, Table] = {}
    dropped: dict[str, dict[str, list[int]]] = {}
    for split, table in tables.items():
        own = "" if split == "train" and spec.unlabelled == "empty" else label
        kept[split], found = without_empty(table, roles, own, split == "test")
        dropped |= {split: found} if found else {}
    return kept, dropped


def _without_labels(spec: TaskSpec, tables: dict[str, Table], label: str) -> Table | None:
    """The training rows without a label, which leave `tables`; None where there are none, or they are faults.

    :raises TaskError: where no row has a label.
    """
    train = tables["train"]
    lacking = [value is None for value in label_values(train, label)]
    if spec.unlabelled != "empty" or not any(lacking):
        return None
    if all(lacking):
        raise TaskError(
            f"{train.where}: column {label!r} holds no label at all; expected some labelled rows beside the others"
        )
    rows = range(len(train))
    tables["train"] = train.select([row for row in rows if not lacking[row]])
    return train.select([row for row in rows if lacking[row]])


def _unseen(
    where: str, texts: Mapping[str, list[Any]], splits: Iterable[Mapping[str, list[Any]]]
) -> tuple[Dataset | None, tuple[str, ...]]:
    """The unlabelled texts that no split holds, and a remark: one of test would be trained on before it is judged.

    :param texts: by role; empty where there are none. :param splits: inputs and labels of each.
    """
    if not texts:
        return None, ()

    def examples(columns: Mapping[str, list[Any]]) -> list[Any]:
        return list(zip(*(texts_of(columns[role]) for role in texts), strict=True))

    known = [example for split in splits for example in examples(split)]
    seen = rows_seen_in(known, examples(texts))
    kept = [row for row, there in enumerate(seen) if not there]
    said = f"{where}: {len(seen)} training rows have no label; the texts of {len(kept)} are data without labels"
    said += f" ({len(seen) - len(kept)} repeat a labelled text)" if len(kept) < len(seen) else ""
    if not kept:
        return None, (said,)
    chosen = {role: [values[row] for row in kept] for role, values in texts.items()}
    return _datasets({"unlabelled": chosen})["unlabelled"], (said,)


def without_empty(
    table: Table, roles: Mapping[str, str], label: str, test: bool
) -> tuple[Table, dict[str, list[int]]]:
    """The table without the rows that have an empty cell, with a remark; and their numbers by column.

    :param test: whether all labels may be missing.
    :raises TaskError: where no row is left.
    """
    columns = {column: [_is_empty(v) for v in table.columns[column]] for column in roles.values()}
    if label in table.columns:
        missing = [value is None for value in label_values(table, label)]
        if not (test and all(missing)):
            columns[label] = missing
    found: dict[str, list[int]] = {}
    kept = []
    for row, number in enumerate(table.numbers):
        if empty := next((name for name, cells in columns.items() if cells[row]), None):
            found.setdefault(empty, []).append(number)
        else:
            kept.append(row)
    if not found:
        return table, found
    if not kept:
        raise TaskError(
            f"{table.where}: every row has an empty cell in {', '.join(map(repr, found))}; "
            "expected at least one complete row"
        )
    what = "line" if table.by_line else "row"
    parts = [f"{len(n)} with an empty {name!r} ({first_of(n, what)})" for name, n in found.items()]
    remark = f"{table.where}: {len(table) - len(kept)} of {len(table)} rows were left out: {', '.join(parts)}"
    return attrs.evolve(table.select(kept), remarks=(*table.remarks, remark)), found


def first_of(numbers: Sequence[int], what: str) -> str:
    """``lines 3, 5, 9 and 12 more``: the first `SHOWN_FAULTS` numbers."""
    more = len(numbers) - SHOWN_FAULTS
    shown = ", ".join(map(str, numbers[:SHOWN_FAULTS])) + (f" and {more} more" if more > 0 else "")
    return f"{what}{'s' if len(numbers) > 1 else ''} {shown}"


def _is_empty(value: Any) -> bool:
    """Whether a cell holds no text, no word and no number."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (
        isinstance(value, (str, list)) and not "".join(map(str, value)).strip()
    )


def _labels(spec: TaskSpec, tables: Mapping[str, Table], column: str, faults: Faults) -> Labels:
    raw = {}
    for name, table in tables.items():
        if (found := raw_labels(table, column, name, faults)) is not None:
            raw[name] = found
    labels = encode_labels(spec, raw, faults)
    if "test" in tables and "test" not in raw:
        remark = f"{tables['test'].where} has no labels: it gives predictions, and no scores"
        labels = attrs.evolve(labels, remarks=(*labels.remarks, remark))
    return labels


def inputs_of(
    table: Table, roles: Mapping[str, str], kind: str, labels: Sequence[Any] | None, faults: Faults
) -> dict[str, list[Any]]:
    """The input columns under their roles. A token task's first input becomes a list of words.

    A column holds texts, or in every row a list: of words, or of what is said of each word.
    """
    inputs = {role: table.columns[column] for role, column in roles.items()}
    first = next(iter(roles))
    if kind == "token":
        inputs[first] = [v.split() if isinstance(v, str) else v for v in inputs[first]]
    for role, values in inputs.items():
        lists = all(isinstance(value, list) for value in values)
        tags = labels if kind == "token" and role == first else None
        for row, value in enumerate(values):
            if _is_empty(value):
                faults.add(table.at(row), f"column {roles[role]!r} is empty", DROP_HINT)
            elif isinstance(value, (bool, int, float)) or (isinstance(value, list) and not lists):
                faults.add(
                    table.at(row), f"column {roles[role]!r} holds {str(value)[:40]!r}, not a text"
                )
            elif tags is not None and len(tags[row]) != len(value):
                faults.add(table.at(row), f"{len(value)} words but {len(tags[row])} labels")
    return inputs


def _metric(spec: TaskSpec, kind: str) -> str:
    fitting = METRICS[kind]
    metric = spec.metric or fitting[0]
    if metric not in fitting:
        raise TaskError(
            f"{spec.path}: metric {metric!r} does not suit a task of kind {kind!r}; "
            f"expected one of: {', '.join(fitting)}"
        )
    return metric


def _datasets(rows: Rows) -> dict[str, Dataset]:
    from datasets import Dataset

    made = {}
    for split, columns in rows.items():
        try:
            made[split] = Dataset.from_dict(columns)
        except (TypeError, ValueError, OverflowError) as cause:  # Arrow has one type a column
            raise TaskError(
                f"the {split} split holds values of several types in one column: {cause}; expected texts, or in every "
                "row the same kind of list"
            ) from cause
    return made
