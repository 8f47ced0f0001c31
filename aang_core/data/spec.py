"""Find a task of step 2, and read its ``task.toml``.

In: a path. Out: a checked `TaskSpec`; then one `Table` for each split, from a folder, a file or ``hf:``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import attrs

from aang_core.config import schema
from aang_core.config.file import read_config
from aang_core.config.schema import Choice, Flag, ListOf, Rule, TableOf, Text, checked
from aang_core.config.settings import UNLABELLED
from aang_core.data.metrics import METRICS
from aang_core.data.readers import SUFFIXES, Faults, Table, read_table, table_of
from aang_core.errors import TaskError

SPLITS = ("train", "dev", "test")
LABEL = "label"
HF = "hf:"
MEMORY = "memory:"
"""What the name of a task begins with that was given in Python as an object, and lies on no disk."""
ALIASES = {"validation": "dev", "valid": "dev", "val": "dev"}
"""Other publishers' names for our splits."""


@attrs.frozen(kw_only=True)
class TaskSpec:
    """What ``task.toml`` says; every field may be left out.

    :param folder: where relative paths start.
    :param path: the file itself, or None where there is none.
    """

    folder: Path
    path: Path | None = None
    name: str = ""
    metric: str = ""
    kind: str = ""
    data: str = ""
    files: Mapping[str, str] = attrs.field(factory=dict)
    columns: Mapping[str, str] = attrs.field(factory=dict)
    header: tuple[str, ...] = ()
    label_names: Mapping[str, str] = attrs.field(factory=dict)
    external: Mapping[str, str] = attrs.field(factory=dict)
    drop_empty: bool = False
    unlabelled: str = UNLABELLED[0]


def read_spec(path: Path, reads: Sequence[str]) -> TaskSpec:
    """Read and check a ``task.toml``.

    :param reads: the input columns that the encoder reads; `columns` may map these and ``label``.
    :raises TaskError: with every fault of the file, each with its line.
    """
    raw, origins = read_config(path, "the task's file", TaskError)
    said = checked(_form(reads), raw, origins, what=str(path), error=TaskError)
    return TaskSpec(folder=path.parent, path=path, **said)


def _form(reads: Sequence[str]) -> Rule:
    """What a ``task.toml`` may hold."""
    text = Text(empty=True)
    return schema.Table(
        {
            "name": Text(),
            "metric": Choice(tuple(dict.fromkeys(chain(*METRICS.values())))),
            "kind": Choice(tuple(METRICS)),
            "data": Text(),
            "files": schema.Table(dict.fromkeys(SPLITS, text)),
            "columns": schema.Table(dict.fromkeys((*reads, LABEL), text)),
            "header": ListOf(text, 1, "column name"),
            "label_names": TableOf(text),
            "external": TableOf(text),
            "drop_empty": Flag(),
            "unlabelled": Choice(UNLABELLED),
        }
    )


def read_splits(spec: TaskSpec, faults: Faults) -> dict[str, Table]:
    """The tables of a task, ``train`` first; a task of one single table has only ``train``.

    :raises TaskError: where a split is missing, empty or named twice.
    """
    if spec.data.startswith(HF):
        if spec.files or spec.header:
            raise TaskError(f"{spec.path}: files and header do not go with data = {spec.data!r}")
        tables = hf_tables(spec.data)
    else:
        place = (spec.folder / Path(spec.data).expanduser()) if spec.data else spec.folder
        paths = split_files(place, spec)
        if spec.header and not any(p.suffix.lower() in (".csv", ".tsv") for p in paths.values()):
            raise TaskError(f"{spec.path}: header is for csv and tsv files, and {place} holds none")
        tables = {name: read_table(path, spec.header, faults) for name, path in paths.items()}
    if "train" not in tables:
        raise TaskError(
            f"{spec.data or spec.folder} has no train split; found: {', '.join(tables)}"
        )
    for name, table in tables.items():
        if not len(table) and not faults.count:
            message = f"{table.where} is empty; the {name} split needs at least one example"
            if table.columns and not spec.header:  # only a header line was read
                message += ' below its header line (none? Say header = ["...", ...] in task.toml)'
            raise TaskError(message)
    return {name: tables[name] for name in SPLITS if name in tables}


def split_files(place: Path, spec: TaskSpec) -> dict[str, Path]:
    """The file of each split under `place`, or `place` itself as the one file there is."""
    if place.is_file():
        return {"train": place}
    if not place.is_dir():
        raise TaskError(f"{spec.path}: data = {spec.data!r} leads to {place}, which does not exist")
    found = {}
    for name, file in spec.files.items():
        found[name] = place / file
        if not found[name].is_file():
            raise TaskError(f"{spec.path}: the file of {name}, {found[name]}, does not exist")
    every = sorted(p for p in place.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
    for path in every:
        split = ALIASES.get(path.stem, path.stem)
        if split not in SPLITS or split in spec.files or path in found.values():
            continue
        if split in found:
            raise TaskError(
                f"{place} has two files for the {split} split, {found[split].name} and {path.name}; "
                f"remove one, or choose with files = {{ {split} = ... }} in task.toml"
            )
        found[split] = path
    if not found and len(every) == 1:
        return {"train": every[0]}
    if not found:
        names = ", ".join(p.name for p in every) or "no data file"
        raise TaskError(
            f"{place} holds no task: expected train, dev and test as {', '.join(SUFFIXES)}, "
            f"or one single file; found {names}"
        )
    return found


def load_hf(address: str) -> Any:
    """A `datasets.DatasetDict` for ``hf:NAME[:CONFIG]``; NAME may be a folder. Never runs remote code.

    :raises TaskError: where it cannot be loaded.
    """
    import datasets

    name, _, config = address.removeprefix(HF).partition(":")
    if not name:
        raise TaskError(f"{address!r} names no data set; expected hf:NAME or hf:NAME:CONFIG")
    # folders may have colons in their names
    if Path(address.removeprefix(HF)).expanduser().is_dir():
        name, config = address.removeprefix(HF), ""
    folder = Path(name).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            loaded = datasets.load_from_disk(str(folder))
        else:
            loaded = datasets.load_dataset(str(folder) if folder.is_dir() else name, config or None)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as cause:
        raise TaskError(
            f"cannot load {address!r} through datasets: {cause}; "
            "check the name (hf:NAME or hf:NAME:CONFIG), the network and HF_HUB_OFFLINE"
        ) from cause
    if isinstance(loaded, datasets.Dataset):
        return datasets.DatasetDict({"train": loaded})
    return loaded


def hf_tables(address: str) -> dict[str, Table]:
    """The splits of ``hf:NAME[:CONFIG]`` under our names; splits of other names are left alone."""
    loaded = load_hf(address)
    tables: dict[str, Table] = {}
    for name, dataset in loaded.items():
        split = ALIASES.get(name, name)
        if split in SPLITS and split not in tables:
            tables[split] = table_of(dataset, f"{address}[{name}]")
    if not tables and len(loaded) == 1:
        [(name, dataset)] = loaded.items()
        return {"train": table_of(dataset, f"{address}[{name}]")}
    if not tables:
        raise TaskError(
            f"{address!r} has the splits {', '.join(loaded)}; expected train, dev, test"
        )
    return tables


def check_columns(tables: Sequence[Table], spec: TaskSpec, role: str, required: bool) -> str:
    """The column that plays `role`, or an empty string where an optional role is not played.

    :raises TaskError: where a column that is mapped or required is absent from a split.
    """
    column = spec.columns.get(role, role)
    lacking = [table for table in tables if column not in table.columns]
    if not lacking or not (required or role in spec.columns or len(lacking) < len(tables)):
        return "" if lacking else column
    table = lacking[0]
    wanted = dict.fromkeys(
        (role, LABEL) if spec.columns.get(LABEL, LABEL) not in table.columns else (role,)
    )
    flags = " ".join(f"--column {each}=..." for each in wanted)
    found = ", ".join(map(repr, table.columns)) or "none"
    raise TaskError(
        f"{table.where} has no column {column!r} for {role!r}; found the columns {found}. "
        f'Name the right one with {flags}, or in task.toml: columns = {{ {role} = "..." }}'
        + ("" if spec.header else ' (for a file without a header line also header = ["...", ...])')
    )
