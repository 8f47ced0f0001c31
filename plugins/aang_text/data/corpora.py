"""External corpora. In: a file, a folder or ``hf:NAME``. Out: `Corpus`, documents of texts.

Sentence boundaries are those of pysbd (Sadvilkar and Neumann, "PySBD: Pragmatic Sentence Boundary
Disambiguation", 2020), whose rules need no model and no download.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import attrs

from aang_core.data.readers import (
    SUFFIXES,
    Faults,
    Table,
    file_and_column,
    read_lines,
    read_table,
    table_of,
)
from aang_core.data.spec import HF, load_hf
from aang_core.errors import TaskError

PASSAGE_WORDS = 50
"""Median words of a line from which lines are passages of their own, not the sentences of documents."""

TEXT = "text"
"""The column that holds the texts where no other is named."""

GROUPS = ("document", "id")
"""Columns that say which document a text belongs to; ``id`` only where its values repeat."""

_MAY_END = re.compile(r"[.!?:;…][^\w\s]*\s+\S|[。！？．]|\n")

Documents = list[list[str]]


@attrs.frozen(eq=False)
class Corpus:
    """Texts in document order.

    :param where: what messages call it.
    :param documents: the texts of each document, in order; neither is ever empty.
    :param remarks: what the user should know: how blank lines were read, what was empty.
    """

    where: str
    documents: Documents
    remarks: tuple[str, ...] = ()


def split_sentences(text: str) -> list[str]:
    """The sentences of an English text, at least one. Texts without a possible end inside cost nothing."""
    if not _MAY_END.search(text):
        return [text]
    return [sentence for piece in _segmenter().segment(text) if (sentence := piece.strip())] or [
        text
    ]


@cache
def _segmenter() -> Any:
    import pysbd  # type: ignore[import-untyped]

    return pysbd.Segmenter(language="en", clean=False)


def load_corpus(where: str | Path) -> Corpus:
    """Read a corpus.

    :param where: a text file (one text a line, or documents with blank lines between), a folder of
        ``.txt`` files (a document each) or of data files, a jsonl, csv, tsv or parquet file with a
        column ``text`` (and perhaps ``document``), such a file and another column for the texts
        (``tickets.csv:message``), a saved data set, or ``hf:NAME[:CONFIG]``.
    :raises TaskError: where it is missing, malformed or empty.
    """
    path, column = file_and_column(where)
    faults = Faults()
    if str(where).startswith(HF):
        documents, remarks = _from_tables(_hf_tables(str(where)), faults)
    elif path.is_dir():
        documents, remarks = _from_folder(path, faults)
    elif not path.is_file():
        raise TaskError(f"corpus {where} is neither a file, a folder nor hf:NAME")
    elif path.suffix.lower() in SUFFIXES:
        documents, remarks = _from_tables([read_table(path, (), faults)], faults, column or TEXT)
    else:
        documents, remarks = _from_lines(path, faults)
    faults.raise_any(f"corpus {where}")
    if not documents:
        raise TaskError(f"corpus {where} holds no text; expected at least one non-empty line")
    return Corpus(str(where), documents, remarks)


def _counted(where: object, count: int, what: str) -> tuple[str, ...]:
    return (f"{where}: {count} {what} skipped",) if count else ()


def _from_lines(path: Path, faults: Faults) -> tuple[Documents, tuple[str, ...]]:
    """A text file. Blank lines are borders of documents, unless its lines are long passages.

    Files of one passage a line often hold a few empty ones; to read these as borders would make
    neighbours of passages that have nothing to do with each other.
    """
    lines = [line.strip() for _, line in read_lines(path, faults)]
    full = [line for line in lines if line]
    blocks = list(_blocks(lines))
    if len(blocks) < 2:
        edges = len(lines) - len(full)
        return [[line] for line in full], _counted(path, edges, "empty lines")
    words = median(len(line.split()) for line in full)
    if words > PASSAGE_WORDS:
        empty = _counted(path, len(lines) - len(full), "empty lines")
        why = f"{path}: each line is a document of its own ({words:g} words at the median)"
        return [[line] for line in full], (*empty, why)
    return blocks, (f"{path}: blank lines were read as borders of {len(blocks)} documents",)


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Runs of non-empty lines."""
    block: list[str] = []
    for line in [*lines, ""]:
        if line:
            block.append(line)
        elif block:
            yield block
            block = []


def _from_folder(folder: Path, faults: Faults) -> tuple[Documents, tuple[str, ...]]:
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return _from_tables(_hf_tables(f"{HF}{folder}"), faults)
    files = sorted(folder.rglob("*.txt"))
    if files:
        documents = [_document([line.strip() for _, line in read_lines(f, faults)]) for f in files]
        full = [document for document in documents if document]
        return full, _counted(folder, len(documents) - len(full), "empty documents")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        kinds = ", ".join((".txt", *SUFFIXES))
        raise TaskError(f"corpus {folder} holds no file of a known kind; expected {kinds}")
    return _from_tables([read_table(file, (), faults) for file in files], faults)


def _document(lines: Sequence[str]) -> list[str]:
    """The texts of a document: its paragraphs where blank lines part them (wrapped or not), else its lines."""
    blocks = list(_blocks(lines))
    return [" ".join(block) for block in blocks] if len(blocks) > 1 else [t for t in lines if t]


def _hf_tables(address: str) -> list[Table]:
    """The ``train`` split, or every split where there is none of that name."""
    loaded = load_hf(address)
    names = ["train"] if "train" in loaded else list(loaded)
    return [table_of(loaded[name], f"{address}[{name}]") for name in names]


def _from_tables(
    tables: Sequence[Table], faults: Faults, column: str = TEXT
) -> tuple[Documents, tuple[str, ...]]:
    documents: Documents = []
    remarks: tuple[str, ...] = ()
    for table in tables:
        if column not in table.columns:
            if not faults.count and len(table):
                found = ", ".join(map(repr, table.columns)) or "none"
                hint = "" if column != TEXT else f"; name one, as in {table.where}:COLUMN"
                raise TaskError(
                    f"{table.where} has no column {column!r}; found the columns {found}{hint}"
                )
            continue
        read, empty = _grouped(table, faults, column)
        documents += read
        remarks += (*table.remarks, *_counted(table.where, empty, "empty texts"))
    return documents, remarks


def _grouped(table: Table, faults: Faults, column: str) -> tuple[Documents, int]:
    """The documents of one table, and how many texts were empty."""
    texts = table.columns[column]
    keys: Sequence[object] = range(len(texts))
    for name in GROUPS:
        values = [str(value) for value in table.columns.get(name, ())]
        if values and (name == "document" or len(set(values)) < len(values)):
            keys = values
            break
    documents: dict[object, list[str]] = {}
    empty = 0
    for row, (key, text) in enumerate(zip(keys, texts, strict=True)):
        if text is not None and not isinstance(text, str):
            faults.add(table.at(row), f"expected a string as {column!r}, found {str(text)[:40]!r}")
        elif text is None or not text.strip():
            empty += 1
        else:
            documents.setdefault(key, []).append(text.strip())
    return list(documents.values()), empty
