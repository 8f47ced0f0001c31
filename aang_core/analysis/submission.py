"""Predictions on test in the submission format of the GLUE benchmark: one tab-separated file for each task, in one
archive.

Each file has the columns ``index`` (the row's number in the test split, from 0) and ``prediction`` (the class as the
task names it, or the number of a regression). Only tasks that a run has predicted are in the archive; there is no
filler file for the others (Wang et al., "GLUE", ICLR 2019; gluebenchmark.com takes archives of these files).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.errors import RunError, one_message
from aang_core.rundir.finished import FinishedRun

_NAMES = ("AX", "CoLA", "MNLI-m", "MNLI-mm", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI")
FILES: Mapping[str, str] = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in _NAMES}
"""What the benchmark calls its files, by the letters and digits of the name."""

_MOMENT = (1980, 1, 1, 0, 0, 0)  # the same archive, byte for byte, whenever it is written


@attrs.frozen(kw_only=True)
class Sheet:
    """One task's file.

    :param name: with ``.tsv``. :param run: where its predictions lie. :param seed: the one that dev preferred, or that
        was asked for. :param rows: how many predictions; `lines` are the file.
    """

    name: str
    task: str
    run: Path
    seed: int
    rows: int
    lines: tuple[str, ...] = attrs.field(repr=False)


def file_name(task: str) -> str:
    """``glue-rte`` → ``RTE.tsv``; a task that GLUE does not have keeps its name."""
    plain = re.sub(r"[^a-z0-9]", "", re.sub(r"^glue[-_:/ ]", "", task.lower()))
    return FILES.get(plain, task.replace("/", "-")) + ".tsv"


def sheets(runs: Sequence[FinishedRun], seed: int | None = None) -> list[Sheet]:
    """The files of finished runs, one a task.

    :param seed: whose predictions, in runs of several seeds; None for the seed with the best dev score.
    :raises RunError: where runs predict the same task, have no predictions on test, or predict what such a file cannot
        hold (several labels a text, a label a word); names them all.
    """
    found: list[Sheet] = []
    faults: list[str] = []
    for run in runs:
        try:
            sheet = _sheet(run, _best_seed(run) if seed is None else seed)
        except RunError as fault:
            faults.append(str(fault))
            continue
        twice = [f"{other.run}" for other in found if other.name == sheet.name]
        faults += [f"{sheet.name} would come from {place} and from {run.path}" for place in twice]
        found.append(sheet)
    if faults:
        raise RunError(one_message(faults, "runs that make no submission"))
    return found


def write_submission(found: Sequence[Sheet], path: Path) -> None:
    """Write the archive, whole or not at all.

    :raises RunError: where it is there already, or cannot be written.
    """
    if path.exists():
        raise RunError(f"{path} exists already; choose another --out")
    temporary = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w") as archive:
            for sheet in found:
                entry = zipfile.ZipInfo(sheet.name, _MOMENT)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, "\n".join(sheet.lines) + "\n")
        temporary.replace(path)
    except OSError as cause:
        raise RunError(f"cannot write {path}: {cause.strerror}") from cause


def _best_seed(run: FinishedRun) -> int:
    """The seed that dev prefers (the first of equals); test has no say."""
    metric = run.report["metric"]
    best = max(run.report["seeds"], key=lambda seed: seed["dev"][metric])
    return int(best["seed"])


def _sheet(run: FinishedRun, seed: int) -> Sheet:
    path = run.folder_of(seed) / "predictions.jsonl"
    rows = run.predictions(seed)
    if not rows:
        raise RunError(
            f"{run.path} predicts nothing ({path} is missing: its task has no test split)"
        )
    lines = ["index\tprediction"]
    for number, row in enumerate(rows, 1):
        try:
            lines.append(f"{row['row']}\t{_answer(row)}")
        except (ValueError, KeyError, TypeError) as cause:
            raise RunError(f"{path}:{number} holds no prediction of one label: {cause}") from cause
    task = run.report["task"]
    return Sheet(
        name=file_name(task), task=task, run=run.path, seed=seed, rows=len(rows), lines=tuple(lines)
    )


def _answer(row: Mapping[str, Any]) -> str:
    if "value" in row:
        return f"{row['value']:.3f}"
    return str(row["label"])
