"""Find faults in a task's data before training, so that a score on it can be trusted.

`audit_task` reads a `Task` and nothing else; a run records its result in ``report.json`` under ``audit``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aang_core.data.duplicates import (
    NEAR,
    joined,
    near_duplicates,
    passages_in,
    rows_seen_in,
    texts_of,
    word_count,
)
from aang_core.data.labels import shown_names
from aang_core.data.metrics import standard_error
from aang_core.data.readers import SHOWN_FAULTS, SUFFIXES, Faults, file_and_column, read_table
from aang_core.data.spec import HF, LABEL
from aang_core.data.task import Task
from aang_core.errors import TaskError

if TYPE_CHECKING:
    from datasets import Dataset

UNASKED_BYTES = 64 * 2**20
"""Corpora up to this size are searched for test examples in every run; larger ones only by `aang audit`."""

UNASKED_ROWS = 50_000
"""Near duplicates are looked for in every run where train has at most so many rows; else only by `aang audit`."""

LEAST_ROWS = 2
"""Classes with fewer training rows are named: nothing general can be learnt from one."""

UNBALANCED = 5
"""From this ratio on, of the largest class to the smallest, the balance is worth a remark."""


def seen_in_training(task: Task) -> list[bool]:
    """For each test row whether its inputs stand in the training split, labelled or not (`rows_seen_in`)."""
    if "test" not in task.splits:
        return []
    train = _inputs(task.splits["train"])
    if task.unlabelled is not None:
        train += _inputs(task.unlabelled)
    return rows_seen_in(train, _inputs(task.splits["test"]))


def _inputs(split: Dataset) -> list[Any]:
    """The inputs of each row: a text (numbers are written out), or a tuple where there are several columns."""
    names = [name for name in split.column_names if name != LABEL]
    columns = [texts_of(split[name][:]) for name in names]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def audit_task(task: Task, thorough: bool = True, draws: int = 1) -> dict[str, Any]:
    """Leaks, repeats, contradictions, balance and lengths.

    :param thorough: whatever the size; else what would take long is None (`UNASKED_BYTES`, `UNASKED_ROWS`).
    :param draws: how many audits share these limits.
    :return: ``splits`` rows of each; ``in_train`` dev and test rows that stand in train word for word
        (`duplicates.normalised`); ``near`` those that do so nearly (`near_duplicates`), exact ones left out;
        ``dropped`` rows that were left out for an empty cell, by split as it was read and column: how many ``rows``,
        and the ``first`` of their lines; ``duplicates`` rows of each split that repeat an earlier one; ``conflicts``
        examples with several labels; ``standard_error`` of a score on dev and test, at most; ``labels`` rows of each
        class (regression: the range); ``lengths`` words (or numbers) an example; ``external`` dev and test rows that
        stand in each corpus; ``fingerprint`` of dev and test, equal for equal data.
    """
    examples = {name: _inputs(split) for name, split in task.splits.items()}
    forms = {split: [joined(example) for example in rows] for split, rows in examples.items()}
    train = set(forms["train"])
    judged = [split for split in forms if split != "train"]
    looked = thorough or len(forms["train"]) * draws <= UNASKED_ROWS
    most_bytes = math.inf if thorough else UNASKED_BYTES / draws
    return {
        "task": task.name,
        "kind": task.kind,
        "splits": {split: len(rows) for split, rows in forms.items()},
        "in_train": {split: sum(form in train for form in forms[split]) for split in judged},
        "near": _near(forms, train) if looked else dict.fromkeys(judged),
        "near_from": NEAR,
        "dropped": {
            split: {
                column: {"rows": len(numbers), "first": list(numbers[:SHOWN_FAULTS])}
                for column, numbers in columns.items()
            }
            for split, columns in task.dropped.items()
        },
        "duplicates": {split: len(rows) - len(set(rows)) for split, rows in forms.items()},
        "conflicts": _conflicts(task, forms),
        "standard_error": {s: round(standard_error(task.kind, len(forms[s])), 4) for s in judged},
        "labels": {split: _labels(task, split) for split in forms if _has_labels(task, split)},
        "lengths": {
            split: length_summary([word_count(form) for form in rows])
            for split, rows in forms.items()
        },
        "external": {
            name: _external(path, {split: examples[split] for split in judged}, most_bytes)
            for name, path in sorted(task.external.items())
        },
        "fingerprint": _fingerprint(task, {split: forms[split] for split in judged}),
    }


def audit_draws(draws: Sequence[Task]) -> dict[str, Any]:
    """The audit of a task whose seeds each have splits of their own, as a run makes it.

    :param draws: the task of each seed.
    :return: as `audit_task` for the first, with the largest count that any draw has for leaks, repeats and
        contradictions, and ``draws``, how many there are.
    """
    audits = [audit_task(task, thorough=False, draws=len(draws)) for task in draws]
    worst = {key: _most([audit[key] for audit in audits]) for key in _COUNTS}
    return {**audits[0], **worst, "draws": len(audits)}


_COUNTS = ("in_train", "near", "duplicates", "conflicts", "external")


def _most(counts: Sequence[Any]) -> Any:
    """The largest of several counts, or of tables of them key by key; None where one is unknown."""
    if isinstance(counts[0], Mapping):
        return {key: _most([each[key] for each in counts]) for key in counts[0]}
    return None if None in counts else max(counts)


def _near(forms: Mapping[str, Sequence[str]], exact: set[str]) -> dict[str, int]:
    """How many rows of each split but train stand nearly in train; those in `exact` are left out."""
    fresh = [(s, form) for s in forms if s != "train" for form in forms[s] if form not in exact]
    pairs = near_duplicates([form for _, form in fresh], forms["train"]) if fresh else []
    counts = Counter(fresh[row][0] for row in {row for row, _, _ in pairs})
    return {split: counts[split] for split in forms if split != "train"}


def _has_labels(task: Task, split: str) -> bool:
    return LABEL in task.splits[split].column_names


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _conflicts(task: Task, forms: Mapping[str, Sequence[str]]) -> int:
    """How many examples have more than one label, over all splits."""
    answers: dict[str, set[Any]] = {}
    for split, rows in forms.items():
        if _has_labels(task, split):
            for form, value in zip(rows, task.splits[split][LABEL][:], strict=True):
                answers.setdefault(form, set()).add(_hashable(value))
    return sum(len(values) > 1 for values in answers.values())


def _labels(task: Task, split: str) -> dict[str, float]:
    """Rows of each class, in the classes' order; words of each for token tasks."""
    values = task.splits[split][LABEL][:]
    names = task.label_names
    if task.kind == "regression":
        return {"least": min(values), "mean": float(np.mean(values)), "most": max(values)}
    if task.kind == "multilabel":
        return dict(zip(names, np.asarray(values).sum(0).astype(int).tolist(), strict=True))
    flat = [v for row in values for v in row] if task.kind == "token" else values
    counts = Counter(flat)
    return {name: counts[number] for number, name in enumerate(names)}


def length_summary(lengths: Sequence[int]) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum."""
    values = np.asarray(lengths, dtype=np.float64)
    return {
        "mean": round(float(values.mean()), 2),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "max": int(values.max()),
    }


def token_lengths(
    lengths: Mapping[str, Sequence[int]], max_length: int
) -> dict[str, dict[str, float]]:
    """How long each split's rows are for an encoder, and the share that a run would cut off.

    :param lengths: by split the positions of each row, special ones included, not yet cut.
    :param max_length: ``training.max_length`` of the run.
    :return: split → `length_summary`, ``cut_rows`` and ``cut_tokens`` (shares).
    """
    found = {}
    for name, own in lengths.items():
        over = [max(0, length - max_length) for length in own]
        found[name] = {
            **length_summary(own),
            "cut_rows": sum(x > 0 for x in over) / len(over),
            "cut_tokens": sum(over) / sum(own),
        }
    return found


def _external(
    path: Path, examples: Mapping[str, Sequence[Any]], most_bytes: float
) -> dict[str, int] | None:
    if str(path).startswith(HF):
        return None
    path, column = file_and_column(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if sum(file.stat().st_size for file in files) > most_bytes:
        return None
    if any(_is_binary(file) for file in files):
        return None
    flat = [example for rows in examples.values() for example in rows]
    marks = iter(passages_in(flat, _texts(files, column)))
    return {split: sum(next(marks) for _ in rows) for split, rows in examples.items()}


def _is_binary(file: Path) -> bool:
    """Whether a file of no table format holds zero bytes, as no text does: its examples cannot be told from here."""
    if file.suffix.lower() in SUFFIXES:
        return False
    with file.open("rb") as stream:
        return b"\0" in stream.read(4096)


def _texts(files: Sequence[Path], column: str) -> Iterator[str]:
    """The lines of text files; of data files the named column, or every one that holds texts.

    :raises TaskError: where a file cannot be read.
    """
    for file in files:
        if file.suffix.lower() in SUFFIXES:
            faults = Faults()
            table = read_table(file, (), faults)
            faults.raise_any(f"corpus {file}")
            columns = {column: table.columns.get(column, [])} if column else table.columns
            for values in columns.values():
                yield from (value for value in values if isinstance(value, str))
            continue
        try:
            with file.open(encoding="utf-8") as lines:
                yield from lines
        except (OSError, UnicodeDecodeError) as cause:
            raise TaskError(f"cannot read the corpus {file}: {cause}") from cause


def _fingerprint(task: Task, forms: Mapping[str, Sequence[str]]) -> str:
    """Sixteen hexadecimal digits of the evaluation data: its texts and labels in their order."""
    digest = hashlib.sha256()
    for split in sorted(forms):
        labels = task.splits[split][LABEL][:] if _has_labels(task, split) else None
        digest.update(json.dumps([split, list(forms[split]), labels]).encode())
    return digest.hexdigest()[:16]


def findings(audit: Mapping[str, Any]) -> list[str]:
    """What is wrong, a clause each; none where the data is clean."""
    found = []
    draws = audit.get("draws", 1)
    worst = f" (in the worst of {draws} draws)" if draws > 1 else ""
    for split in ("test", "dev"):
        rows = audit["splits"].get(split, 0)
        exact, near = audit["in_train"].get(split, 0), audit["near"].get(split, 0)
        if exact:
            found.append(f"{exact} of {rows} {split} examples stand in train{worst}")
        if near:
            found.append(f"{near} {split} examples stand nearly in train{worst}")
    if repeats := {split: n for split, n in audit["duplicates"].items() if n}:
        parts = ", ".join(f"{n} in {split}" for split, n in repeats.items())
        found.append(f"repeated rows: {parts}")
    if audit["conflicts"]:
        count = audit["conflicts"]
        found.append(
            f"{count} {'examples have' if count > 1 else 'example has'} more than one label"
        )
    for name, counts in audit["external"].items():
        for split, rows in (counts or {}).items():
            if rows:
                found.append(f"{rows} {split} examples stand in the corpus {name}{worst}")
    counts = _class_counts(audit)
    if few := [f"{name} ({rows})" for name, rows in counts.items() if rows < LEAST_ROWS]:
        found.append(f"fewer than {LEAST_ROWS} rows in train: {shown_names(few)}")
    return found


def advice(audit: Mapping[str, Any]) -> list[str]:
    """What is no fault, and should be known before a score is read; a sentence each."""
    if not unbalanced(audit):
        return []
    counts = _class_counts(audit)
    total = sum(counts.values())
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    share = f"{counts[most] / total:.0%}"
    return [
        f"the classes are unbalanced: {most} has {counts[most]} of {total} labels in train ({share}), {least} "
        f'{counts[least]}; accuracy mostly says how {most} fares. metric = "f1" in task.toml counts every class alike, '
        'training.class_weights = "balanced" weighs rare classes up, and training.class_draws = "balanced" draws them '
        "as often as the others"
    ]


def unbalanced(audit: Mapping[str, Any]) -> bool:
    """Whether the commonest class of train has at least `UNBALANCED` times as many labels as the rarest."""
    counts = _class_counts(audit)
    return bool(counts) and max(counts.values()) >= UNBALANCED * max(1, min(counts.values()))


def _class_counts(audit: Mapping[str, Any]) -> dict[str, int]:
    """Labels of each class in train; empty for a regression, and in older reports, which name no kind."""
    known = audit.get("kind", "regression") != "regression"
    return dict(audit.get("labels", {}).get("train", {})) if known else {}
