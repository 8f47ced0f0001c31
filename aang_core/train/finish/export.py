"""Export a finished seed's model, verify the files, and predict with them.

``model/`` can be used without aang. Predictions are labels with probabilities (`prediction`), for the rows of test
(`write_predictions`) and for any file (`chosen_model`, `read_examples`, `answers`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Row, word_starts
from aang_core.config.settings import RunConfig
from aang_core.data.readers import SUFFIXES, Faults, Table, decoded_lines, read_lines, read_table
from aang_core.data.spec import LABEL, TaskSpec, read_spec
from aang_core.data.task import Task, without_empty
from aang_core.errors import RunError, TaskError
from aang_core.registry.records import BackboneKind, load_factory
from aang_core.registry.registry import Registry
from aang_core.rundir.finished import read_run
from aang_core.train.session import Session

TOLERANCE = 1e-4
_CHECKED = 256
_PROVED = 32
_EMPTY_HINT = "rows with an empty text can be left out: --drop-empty"


def export_model(session: Session, directory: Path) -> None:
    """Write ``model/`` and prove it: reloaded from its files alone it gives the same dev logits.

    Few rows suffice, from the shortest to the longest: what differs from row to row is what the weights of tokens and
    places say, and an encoder compares every weight in the files with the trained one (`protocols.Backbone.export`).

    :raises RunError: where a logit of the dev examples that are compared (at most 32) differs by more than 1e-4,
        relative to the largest; the files are removed then.
    """
    backbone, task = session.model.backbone, session.task
    backbone.export(directory, session.end_task_head, task)
    rows = _spread(session.stopping)
    examples = [task.splits["dev"][row.origin.document] for row in rows]
    logits = session.predict(rows)
    ours = torch.cat([each.reshape(-1, each.shape[-1]) for each in logits])
    theirs = backbone.exported_logits(directory, examples).float().cpu()
    gap = float((ours - theirs.reshape(ours.shape)).abs().max() / ours.abs().max().clamp(min=1.0))
    if not gap <= TOLERANCE:
        shutil.rmtree(directory)
        raise RunError(
            f"the exported model's dev logits differ from the trained one's by {gap:.1e} "
            f"(at most {TOLERANCE:.0e}); nothing was exported"
        )


def _spread(rows: Sequence[Row]) -> list[Row]:
    """At most `_PROVED` of the rows, evenly over their lengths, the shortest and the longest among them."""
    ordered = sorted(rows, key=len)
    count = min(_PROVED, len(ordered))
    return [ordered[i * (len(ordered) - 1) // max(1, count - 1)] for i in range(count)]


class Answered(Protocol):
    """What gives logits their meaning: a `task.Task`, or an exported model that remembers one."""

    @property
    def kind(self) -> str:
        """A key of `metrics.METRICS`."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes in order."""


def prediction(task: Answered, logits: Tensor) -> dict[str, Any]:
    """One row's logits as a label (or several, or a number) with probabilities.

    :param logits: [C], or for token tasks [words, C].
    """
    if task.kind == "regression":
        return {"value": float(logits[0])}
    names = task.label_names
    if task.kind == "multilabel":
        chances = torch.sigmoid(logits).tolist()
        chosen = [name for name, chance in zip(names, chances, strict=True) if chance > 0.5]
        return {"labels": chosen, "probabilities": dict(zip(names, chances, strict=True))}
    chances = torch.softmax(logits, -1).tolist()
    if task.kind == "token":
        return {"labels": [names[max(range(len(c)), key=c.__getitem__)] for c in chances]}
    best = max(range(len(chances)), key=chances.__getitem__)
    return {"label": names[best], "probabilities": dict(zip(names, chances, strict=True))}


def write_predictions(
    task: Task, logits: Sequence[Tensor], rows: Sequence[Row], directory: Path
) -> None:
    """``predictions.jsonl``: the chosen checkpoint's answer for each test example, in the order of the split.

    :param logits: of each row, [C], or [T, C] for token tasks, of which the first position of each word answers.
    """
    if task.kind == "token":
        logits = [
            each[word_starts(row.marks["word"])] for each, row in zip(logits, rows, strict=True)
        ]
    (directory / "predictions.jsonl").write_text(_lines(task, logits), encoding="utf-8")


def _lines(task: Task, logits: Sequence[Tensor]) -> str:
    """One line per row: its inputs, the prediction, and under ``gold`` the true answer if test has labels."""
    examples = task.splits["test"]
    rows = (
        {"row": i, **prediction(task, each), **_known(task, example)}
        for i, (each, example) in enumerate(zip(logits, examples, strict=True))
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _known(task: Task, example: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {name: value for name, value in example.items() if name != LABEL}
    if LABEL not in example:
        return {"inputs": inputs}
    return {"inputs": inputs, "gold": gold(task, example[LABEL])}


def gold(task: Task, label: Any) -> Any:
    """A label of a split in the form of `prediction`: a name, a list of names, or a number."""
    names = task.label_names
    if task.kind == "multilabel":
        return [name for name, on in zip(names, label, strict=True) if on]
    if task.kind == "token":
        return [names[number] for number in label]
    return names[label] if task.kind == "class" else label


class Predictor(Protocol):
    """An exported model; what a `records.BackboneKind`'s ``predictor(directory, settings)`` returns."""

    kind: str
    label_names: tuple[str, ...]

    def logits(self, examples: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        """Each example's logits on the CPU: [C], or for token tasks [words, C], as far as the longest row reaches."""


@attrs.frozen(eq=False, kw_only=True)
class ChosenModel:
    """The model of one seed of a finished run, with what a prediction needs.

    :param seed: whose model it is; `seeds` are all of the run.
    :param reads: the input columns of its task, but for those that only training needs.
    """

    config: RunConfig
    kind: BackboneKind
    model: Path
    seed: int
    seeds: tuple[int, ...]
    reads: tuple[str, ...]


def chosen_model(directory: Path, registry: Registry, seed: int | None = None) -> ChosenModel:
    """The model to predict with, of a run.

    :param seed: one of the run's; None for the first.
    :raises RunError: where the run is unfinished or damaged, or has no such seed.
    """
    run = read_run(directory)
    chosen = run.seeds[0] if seed is None else seed
    model = run.folder_of(chosen) / "model"
    if not model.is_dir():
        raise RunError(f"{model} is missing; the run was moved or pruned, so it cannot answer")
    kind = registry.backbone_for(run.report["model"])
    return ChosenModel(
        config=run.config,
        kind=kind,
        model=model,
        seed=chosen,
        seeds=run.seeds,
        reads=tuple(name for name in run.report["reads"] if name not in kind.training_only),
    )


Examples = tuple[Table, list[dict[str, Any]]]
"""A table, whose numbers are lines of its file, and its rows by input column."""


def read_examples(asked: ChosenModel, path: Path, drop_empty: bool = False) -> Examples:
    """The examples in a file with the columns of the run's task, in one that its encoder reads, or one text a line.

    :param drop_empty: leave out rows of a table with an empty text, with a remark, instead of refusing them.
    :raises TaskError: where the file is missing, malformed, empty, or lacks a column.
    """
    faults = Faults()
    if reader := asked.kind.readers.get(path.suffix.lower()):
        columns = load_factory(reader)(path)
        numbers = range(1, 1 + max(map(len, columns.values()), default=0))
        table = Table(where=str(path), columns=columns, numbers=numbers, by_line=False)
        return _examples(asked, table, TaskSpec(folder=Path()), faults, False)
    if path.suffix.lower() not in SUFFIXES:
        return _from_lines(asked, read_lines(path, faults), str(path), faults)
    spec = _spec(asked)
    return _examples(asked, read_table(path, spec.header, faults), spec, faults, drop_empty)


def read_texts(asked: ChosenModel, data: bytes, where: str) -> Examples:
    """The examples in these bytes, one text per line. :param where: their name in messages.

    :raises TaskError: where they are malformed or empty, or the task reads more than one text.
    """
    faults = Faults()
    return _from_lines(asked, decoded_lines(data, where, faults), where, faults)


def _examples(
    asked: ChosenModel, table: Table, spec: TaskSpec, faults: Faults, drop_empty: bool
) -> Examples:
    """The rows of a table, checked; on request without those that have an empty text."""
    path = table.where
    faults.raise_any(path)
    columns = {role: _column(table, role, spec) for role in asked.reads}
    values = {role: table.columns.get(column) for role, column in columns.items()}
    lacking = [columns[role] for role, found in values.items() if found is None]
    if lacking and len(table):
        raise TaskError(
            f"{path} has no column {', '.join(map(repr, lacking))}; the run's task reads "
            f"{', '.join(map(repr, columns.values()))}, and the file has {', '.join(map(repr, table.columns))}"
        )
    if not len(table):
        raise TaskError(f"{path} holds no example")
    if drop_empty:
        table, _ = without_empty(table, columns, "", test=True)
    cells = {role: table.columns[column] for role, column in columns.items()}
    examples = [{role: cells[role][row] for role in asked.reads} for row in range(len(table))]
    for row, example in enumerate(examples):
        for role, value in example.items():
            if not value or (isinstance(value, str) and not value.strip()):
                faults.add(table.at(row), f"column {columns[role]!r} is empty", _EMPTY_HINT)
            elif not isinstance(value, (str, list)):
                faults.add(table.at(row), f"column {columns[role]!r} holds {value!r}, not a text")
    faults.raise_any(path)
    return table, examples


def _spec(asked: ChosenModel) -> TaskSpec:
    """What the run and the task's own ``task.toml``, where it is still there, say of columns."""
    place = Path(asked.config.task).expanduser()
    toml = place / "task.toml" if place.is_dir() else place
    told = toml.suffix == ".toml" and toml.is_file()
    spec = read_spec(toml, asked.kind.reads) if told else TaskSpec(folder=Path())
    return attrs.evolve(spec, columns={**spec.columns, **asked.config.columns})


def _column(table: Table, role: str, spec: TaskSpec) -> str:
    """The task's column for a role, or else the column of that name."""
    column = spec.columns.get(role, role)
    return column if column in table.columns or role not in table.columns else role


def _from_lines(
    asked: ChosenModel, lines: Sequence[tuple[int, str]], path: str, faults: Faults
) -> Examples:
    """One text per line, without blank lines.

    :raises TaskError: where the task reads more than one text.
    """
    reads = asked.reads
    if len(reads) > 1:
        raise TaskError(
            f"{path} holds one text a line, but the run's task reads {', '.join(map(repr, reads))}; "
            f"give a file with these columns ({', '.join(SUFFIXES)})"
        )
    kept = [(number, text) for number, text in lines if text.strip()]
    blank = len(lines) - len(kept)
    table = Table(
        where=path,
        columns={reads[0]: [text for _, text in kept]},
        numbers=[number for number, _ in kept],
        remarks=(f"{path}: {blank} blank lines skipped",) if blank else (),
    )
    return _examples(asked, table, TaskSpec(folder=Path()), faults, False)


def _in_words(example: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    """An example of a token task, its text split at blanks, as in the task itself."""
    value = example[column]
    return {**example, column: value.split()} if isinstance(value, str) else example


def answers(
    asked: ChosenModel, table: Table, examples: Sequence[Mapping[str, Any]], device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """``{"line", …}`` for each example, with what `prediction` says of it.

    :raises RunError: where the run's kind of encoder has no predictor.
    """
    if not asked.kind.predictor:
        raise RunError(
            f"encoders of the kind {asked.kind.name!r} bring no way to predict from files"
        )
    settings = BackboneSettings(max_length=asked.config.training.max_length, device=device)
    predictor: Predictor = load_factory(asked.kind.predictor)(asked.model, settings)
    if predictor.kind == "token":
        examples = [_in_words(example, asked.reads[0]) for example in examples]
    for number, logits in zip(table.numbers, predictor.logits(examples), strict=True):
        yield {"line": number, **prediction(predictor, logits)}


def export_onnx(asked: ChosenModel, out: Path) -> tuple[float, int]:
    """Write a run's model as ONNX into a new folder, proved on the rows of test (at most 256), or on two texts.

    :return: the largest gap between its logits and the model's, relative to the largest; and the rows that showed it.
    :raises RunError: where the folder exists, or the run's kind of encoder has no such export.
    :raises ModelError: where a library is missing, or the logits differ.
    """
    if out.exists():
        raise RunError(f"{out} exists already; choose another folder")
    if not asked.kind.onnx:
        raise RunError(f"encoders of the kind {asked.kind.name!r} bring no export to ONNX")
    path = asked.model.parent / "predictions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    examples = [json.loads(line)["inputs"] for line in lines[:_CHECKED]]
    if not examples:
        texts = ("one", "a longer text, of several words")
        examples = [dict.fromkeys(asked.reads, text) for text in texts]
    settings = BackboneSettings(max_length=asked.config.training.max_length, device="cpu")
    gap: float = load_factory(asked.kind.onnx)(asked.model, out, examples, settings)
    return gap, len(examples)


def labelled_table(table: Table, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The examples' own columns followed by the answers, for a spreadsheet.

    Answers are ``label`` and its ``probability``; for several labels per row or word by word, ``labels`` with blanks;
    for regression ``value``. If the file has a column of that name, the new one is called ``predicted_…``.
    """
    found = []
    for number, row in enumerate(rows):
        answer = {name: row[name] for name in ("value", "label") if name in row}
        if "label" in row:
            answer["probability"] = round(row["probabilities"][row["label"]], 6)
        if "labels" in row:
            answer["labels"] = " ".join(row["labels"])
        own = {name: values[number] for name, values in table.columns.items()}
        answer = {f"predicted_{n}" if n in own else n: value for n, value in answer.items()}
        found.append({**own, **answer})
    return found
