"""The file ``task.toml`` of step 2. In: its path. Out: `TaskSpec`, checked; every fault reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.errors import TaskError, nearest
from aang_core.files import toml_of

KINDS = ("class", "regression", "multilabel", "token")
METRICS = ("accuracy", "f1", "pearson", "spearman")
CORRELATIONS = ("pearson", "spearman")
SPLITS = ("train", "dev", "test")
LABEL = "label"


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


def unknown(what: str, word: str, known: Sequence[str]) -> str:
    """A sentence about a word that is not among the known ones."""
    return f"unknown {what} {word!r}{nearest(word, known)} (expected: {', '.join(known)})"


def read_spec(path: Path, reads: Sequence[str]) -> TaskSpec:
    """Read and check a ``task.toml``.

    :param reads: the input columns that the encoder reads; `columns` may map these and ``label``.
    :raises TaskError: with every fault of the file.
    """
    try:
        raw = toml_of(path.read_bytes().decode("utf-8-sig"))
    except OSError as cause:
        raise TaskError(f"cannot read {path}: {cause.strerror}") from cause
    except ValueError as cause:
        raise TaskError(f"{path} is not TOML: {cause}") from cause
    faults = _spec_faults(raw, reads)
    if faults:
        raise TaskError(f"{path} has {len(faults)} fault(s):\n  " + "\n  ".join(faults))
    known = {**raw, "header": tuple(raw.get("header", ()))}
    return TaskSpec(folder=path.parent, path=path, **known)


def _spec_faults(raw: Mapping[str, Any], reads: Sequence[str]) -> list[str]:
    strings, tables = (
        ("name", "metric", "kind", "data"),
        ("files", "columns", "label_names", "external"),
    )
    keys = (*strings[:4], *tables[:2], "header", *tables[2:])
    faults = [unknown("key", key, keys) for key in raw if key not in keys]
    faults += [
        f"{key} must be a non-empty string, found {raw[key]!r}"
        for key in strings
        if key in raw and not (isinstance(raw[key], str) and raw[key].strip())
    ]
    for key, values in (("kind", KINDS), ("metric", METRICS)):
        if isinstance(raw.get(key), str) and raw[key] not in values:
            faults.append(unknown(key, raw[key], values))
    for key in tables:
        faults += _table_faults(key, raw.get(key, {}))
    for key, names in (("files", SPLITS), ("columns", (*reads, LABEL))):
        if isinstance(raw.get(key), dict):
            faults += [unknown(f"name in {key}:", n, names) for n in raw[key] if n not in names]
    header = raw.get("header", ["-"])
    if not (isinstance(header, list) and header and all(isinstance(n, str) for n in header)):
        faults.append(f"header must be a list of column names, found {header!r}")
    elif len(set(header)) < len(header):
        faults.append("header names a column twice")
    return faults


def _table_faults(key: str, value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [f"{key} must be a table of strings, found {value!r}"]
    return [
        f"{key}.{k} must be a string, found {v!r}"
        for k, v in value.items()
        if not isinstance(v, str)
    ]
