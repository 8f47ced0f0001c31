"""The task ``sample``: which part of Python's standard library does a docstring come from?

It needs no download and ships no data: the texts are the first paragraphs of the docstrings of the
Python that runs it, read with `ast` (nothing is imported), and the in-domain corpus is the prose of
`pydoc_data.topics`. The same Python version gives the same task on every machine. Modules that
later versions have dropped are left out, so versions differ little.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs
import numpy as np

from aang_core.data.duplicates import normalised
from aang_core.data.splits import SPLIT_SEED, draw_by_class
from aang_core.data.task import Task
from aang_core.errors import TaskError
from aang_text.data.stored import user_cache

PARTS = {
    "text": "string re difflib textwrap stringprep rlcompleter codecs encodings gettext locale html xml "
    "_markupbase shlex cmd",
    "data types": "datetime _pydatetime _strptime zoneinfo calendar collections _collections_abc heapq "
    "bisect _weakrefset weakref types copy pprint reprlib enum graphlib numbers decimal _pydecimal "
    "fractions statistics random functools operator dataclasses abc contextlib colorsys uuid hashlib "
    "hmac secrets",
    "files": "pathlib posixpath ntpath genericpath fileinput stat filecmp tempfile glob fnmatch linecache "
    "shutil io _pyio os zipfile tarfile gzip bz2 lzma _compression wave",
    "persistence": "pickle copyreg shelve dbm sqlite3 pickletools plistlib _compat_pickle configparser "
    "csv json netrc",
    "concurrency": "threading multiprocessing concurrent subprocess sched queue contextvars asyncio "
    "selectors _threading_local signal pty",
    "network": "socket ssl email mailbox mimetypes base64 quopri http urllib ftplib poplib imaplib "
    "smtplib socketserver xmlrpc ipaddress wsgiref webbrowser",
    "development": "typing pydoc doctest unittest bdb pdb timeit trace tracemalloc ensurepip venv inspect "
    "dis ast symtable token tokenize pyclbr py_compile compileall importlib pkgutil modulefinder code "
    "codeop argparse optparse getopt logging cProfile profile pstats sysconfig site traceback warnings "
    "zipapp zipimport runpy keyword tabnanny",
}
"""Modules by part of the library, after the chapters of its manual."""

LEAST_WORDS = 6
TRAIN_ROWS, DEV_ROWS = 300, 600
"""Few labels, as the people have for whom aang is made; of what is left, half is test, half unlabelled."""


def load() -> Task:
    """The task with `TRAIN_ROWS` labelled examples; the other training texts are unlabelled."""
    whole = load_all()
    train = whole.splits["train"]
    chosen = draw_by_class(train["label"][:], TRAIN_ROWS, np.random.default_rng(SPLIT_SEED))
    others = sorted(set(range(len(train))) - set(chosen))
    return attrs.evolve(
        whole,
        name="sample",
        splits={**whole.splits, "train": train.select(chosen)},
        unlabelled=train.select(others).remove_columns("label"),
    )


def load_all() -> Task:
    """The task with every training label: what studies draw ``--train-rows`` from, anew for each seed."""
    from datasets import Dataset

    texts, labels = _labelled_texts()
    generator = np.random.default_rng(SPLIT_SEED)
    rest = list(range(len(texts)))
    rows: dict[str, list[int]] = {}
    for split, size in (("dev", DEV_ROWS), ("test", (len(texts) - TRAIN_ROWS - DEV_ROWS) // 2)):
        drawn = {rest[i] for i in draw_by_class([labels[i] for i in rest], size, generator)}
        rows[split] = sorted(drawn)
        rest = [i for i in rest if i not in drawn]
    return Task(
        name="sample-all",
        kind="class",
        metric="accuracy",
        splits={
            split: Dataset.from_dict(
                {"text": [texts[i] for i in part], "label": [labels[i] for i in part]}
            )
            for split, part in {"train": rest, **rows}.items()
        },
        label_names=tuple(sorted(PARTS)),
        external={"in-domain": _corpus_file()},
    )


@cache
def _labelled_texts() -> tuple[list[str], list[int]]:
    """Distinct paragraphs, sorted, and their parts; those that stand in several parts are left out.

    :raises TaskError: where this Python has no library sources to read.
    """
    root = Path(sysconfig.get_path("stdlib"))
    parts: dict[str, set[int]] = {}
    spelt: dict[str, str] = {}
    for label, part in enumerate(sorted(PARTS)):
        for module in PARTS[part].split():
            for file in _sources(root, module):
                for text in _paragraphs(file):
                    key = normalised(text)
                    parts.setdefault(key, set()).add(label)
                    spelt.setdefault(key, text)
    kept = sorted(key for key, labels in parts.items() if len(labels) == 1)
    if len(kept) < 2 * (TRAIN_ROWS + DEV_ROWS):
        raise TaskError(
            f"task 'sample' reads the docstrings of Python's own library, expected as .py files under "
            f"{root}; found {len(kept)} texts. Use a Python with its sources, or give another --task"
        )
    return [spelt[key] for key in kept], [next(iter(parts[key])) for key in kept]


def _sources(root: Path, module: str) -> Iterator[Path]:
    """The source files of a module or package, without its tests; none where this version lacks it."""
    package = root / module
    if not package.is_dir():
        yield from (file for file in [package.with_suffix(".py")] if file.is_file())
        return
    for file in sorted(package.rglob("*.py")):
        if not {"test", "tests"} & set(file.relative_to(root).parts):
            yield file


def _paragraphs(file: Path) -> Iterator[str]:
    """The first paragraph of each docstring, on one line."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes: list[ast.AST] = [ast.parse(file.read_bytes(), filename=str(file))]
    while nodes:
        node = nodes.pop()
        for field in ("body", "orelse", "handlers", "finalbody"):  # expressions hold no docstrings
            inner = getattr(node, field, None)
            nodes += inner if isinstance(inner, list) else []
        if isinstance(node, documented) and (docstring := ast.get_docstring(node)):
            words = docstring.split("\n\n")[0].split()
            if len(words) >= LEAST_WORDS:
                yield " ".join(words)


def corpus_text() -> str:
    """The prose of the language reference: a paragraph a line, a blank line between topics."""
    from pydoc_data.topics import topics

    seen: set[str] = set()  # some topics contain others
    documents = []
    for name in sorted(topics):
        lines = []
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            line = " ".join(paragraph.split())
            if _is_prose(paragraph) and line not in seen:
                seen.add(line)
                lines.append(line)
        if lines:
            documents.append("\n".join(lines))
    return "\n\n".join(documents) + "\n"


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph says something: no heading, no grammar, no code, and not too short."""
    text = paragraph.strip()
    if len(text.split()) < LEAST_WORDS or any(
        m in text for m in ("::=", ">>>", "***", "===", "---")
    ):
        return False
    indented = paragraph.startswith("   ")  # code is, but so are the descriptions of methods
    return not indented or bool(re.match("[A-Z]", text) and re.search("[.:)]$", text))


def _corpus_file() -> Path:
    """The corpus as a file in the user's cache, written whole or not at all.

    :raises TaskError: where the cache cannot be written.
    """
    version = sysconfig.get_python_version()
    target = user_cache() / f"sample-python-{version}" / "in-domain.txt"
    content = corpus_text().encode()
    try:
        if target.is_file() and target.read_bytes() == content:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, target)  # readers see the old file or the new one, never half of it
    except OSError as cause:
        raise TaskError(
            f"cannot write the corpus of task 'sample' to {target}: {cause.strerror}; "
            "set XDG_CACHE_HOME to a folder that you may write to"
        ) from cause
    return target
