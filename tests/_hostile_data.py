"""Bad tasks, corpora and models: what is wrong, the command that meets it, what it should say."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _spoilt import DEEP, DIGITS, Prepare, Row, text
from _tasks import write_task


def task(spoil: Callable[[Path], Any], said: str, command: str = "audit") -> Row:
    """A good task of which something is spoilt."""
    train = ["run", "--method", "finetune", "--model", "scratch:tiny", "--out", "out", "--task"]
    arguments = train if command == "run" else [command]
    return lambda f: spoil(write_task(f / "boxes")), [*arguments, "boxes"], said


def train(content: str | bytes) -> Callable[[Path], Any]:
    return text("train.jsonl", content)


def spec(content: str | bytes) -> Callable[[Path], Any]:
    return text("task.toml", content)


def line(value: str) -> str:
    return f'{{"text": "a text", "label": {value}}}\n' * 3


def _other(name: str, data: bytes) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        (folder / "train.jsonl").unlink()
        (folder / name).write_bytes(data)

    return spoil


def _link(to: str) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        (folder / "train.jsonl").unlink()
        (folder / "train.jsonl").symlink_to(to)

    return spoil


TASKS: dict[str, Row] = {
    "missing": (lambda _: None, ["audit", "nowhere"], "neither a folder, a file nor"),
    "an empty folder": (lambda f: (f / "boxes").mkdir(), ["audit", "boxes"], "holds no task"),
    "a link to itself": (lambda f: (f / "boxes").symlink_to("boxes"), ["audit", "boxes"], "boxes"),
    "a file of no kind": (text("boxes.exe", b"MZ"), ["audit", "boxes.exe"], "is no task file"),
    "an empty file": task(train(""), "train.jsonl is empty"),
    "JSON of another kind": task(train('{"text": "a", "label": "b"},\n'), "not JSON"),
    "a line nested too deeply": task(train(DEEP), "nested too deeply"),
    "a label of too many digits": task(train(line(DIGITS)), "not JSON"),
    "UTF-16": task(train(line('"a"').encode("utf-16")), "is UTF-16"),
    "Latin-1": task(train('{"text": "café", "label": "a"}'.encode("latin-1")), "is not UTF-8"),
    "binary": task(train(bytes(range(256)) * 9), "is not UTF-8"),
    "half a character": task(train('{"text": "\\ud800", "label": "a"}\n'), "surrogate"),
    "a list among texts": task(
        train(line('"fruit"') + '{"text": [1], "label": "metal"}\n'), "not a text"
    ),
    "a table for a text": task(
        train(line('"fruit"') + '{"text": {"a": 1}, "label": "metal"}\n'), "train", "run"
    ),
    "a table for a label": task(train(line('{"a": 1}')), "train.jsonl:1"),
    "a label that is no number": task(
        lambda f: (spec('kind = "regression"')(f), train(line("NaN"))(f)),
        "an empty cell in 'label'",
    ),
    "an infinite label": task(
        lambda f: (spec('kind = "regression"')(f), train(line("1e999"))(f)), "finite number"
    ),
    "labels of several kinds": task(
        lambda f: (spec('kind = "multilabel"')(f), train(line("3"))(f)), "train.jsonl:1"
    ),
    "words without labels": task(
        lambda f: (spec('kind = "token"')(f), train(line('["a"]'))(f)), "expected a list of labels"
    ),
    "an open quotation": task(_other("train.csv", b'text,label\n"a,b\n'), "not csv"),
    "a csv with null characters": task(_other("train.csv", b"text,label\na\0,b\n"), "train.csv"),
    "a column twice": task(_other("train.csv", b"text,text,label\na,b,c\n"), "twice"),
    "rows of other lengths": task(_other("train.tsv", b"text\tlabel\na\n"), "expected 2 cells"),
    "parquet that is none": task(_other("train.parquet", b"PAR1 and then nothing"), "as parquet"),
    "an empty parquet": task(_other("train.parquet", b""), "as parquet"),
    "a folder for a file": task(
        lambda f: ((f / "train.jsonl").unlink(), (f / "train.jsonl").mkdir()), "no train split"
    ),
    "a link to nowhere": task(_link("nowhere.jsonl"), "no train split"),
    "a link in a circle": task(_link("train.jsonl"), "no train split"),
    "task.toml: no TOML": task(spec("name = "), "is not valid TOML"),
    "task.toml: binary": task(spec(bytes(range(256))), "is not valid TOML"),
    "task.toml: nested too deeply": task(spec(f"header = {DEEP}"), "is not valid TOML"),
    "task.toml: too many digits": task(spec(f"metric = {DIGITS}"), "is not valid TOML"),
    "task.toml: wrong types": task(
        spec('name = 3\nfiles = "x"\nheader = "text"\n'), "task.toml: 3 faults"
    ),
    "task.toml: a file that is not there": task(
        spec('files = { train = "../../etc/nothing" }'), "does not exist"
    ),
    "task.toml: a file of no kind": task(
        spec('files = { train = "../secret" }'), "secret, does not exist"
    ),
    "task.toml: data in a folder that is not there": task(spec('data = "../x"'), "does not exist"),
    "task.toml: an unknown metric": task(spec('metric = "<script>"'), "(got '<script>')"),
    "task.toml: control characters": task(spec('kind = "\\u001b[31mred"'), "`kind` must be one of"),
    "hf: without a name": (lambda _: None, ["audit", "hf:"], "names no data set"),
    "hf: a path that is not there": (lambda _: None, ["audit", "hf:../../nowhere"], "cannot load"),
}


def corpus(spoil: Prepare, said: str, name: str = "c.txt") -> Row:
    def prepare(folder: Path) -> None:
        write_task(folder / "boxes")
        spoil(folder)

    given = ["--task", "boxes", "--space", "dapt", "--external", f"in-domain={name}"]
    return prepare, ["list-objectives", *given], said


CORPORA: dict[str, Row] = {
    "missing": corpus(lambda _: None, "no such file or folder"),
    "empty": corpus(text("c.txt", ""), "holds no text"),
    "blank lines": corpus(text("c.txt", "\n \n\t\n"), "holds no text"),
    "binary": corpus(text("c.txt", bytes(range(256))), "is not UTF-8"),
    "UTF-16": corpus(text("c.txt", "a text".encode("utf-16")), "is UTF-16"),
    "an empty folder": corpus(lambda f: (f / "c.txt").mkdir(), "no file of a known kind"),
    "a link to nowhere": corpus(lambda f: (f / "c.txt").symlink_to("x"), "no such file"),
    "a link in a circle": corpus(lambda f: (f / "c.txt").symlink_to("c.txt"), "no such file"),
    "jsonl nested too deeply": corpus(text("c.jsonl", DEEP), "nested too deeply", "c.jsonl"),
    "jsonl without texts": corpus(text("c.jsonl", '{"a": 1}\n'), "no column 'text'", "c.jsonl"),
    "numbers for texts": corpus(text("c.jsonl", '{"text": 1}\n'), "expected a string", "c.jsonl"),
    "a name that no data source has": (
        text("c.txt", "a text"),
        ["list-objectives", "--task", "sample", "--external", "<b>=c.txt"],
        "no such data source",
    ),
}


def tensors(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file."""
    return struct.pack("<Q", len(header)) + header + data


def model(spoil: Callable[[Path], Any], said: str) -> Row:
    """A folder with a good configuration of which something is spoilt."""

    def prepare(folder: Path) -> None:
        write_task(folder / "boxes")
        place = folder / "encoder"
        place.mkdir()
        good = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 9}
        (place / "config.json").write_text(json.dumps(good), "utf-8")
        (place / "model.safetensors").write_bytes(tensors(b"{}"))
        spoil(place)

    return prepare, ["audit", "boxes", "--model", "./encoder"], said


MODELS: dict[str, Row] = {
    "missing": model(lambda f: f.rename(f.parent / "gone"), "does not exist"),
    "no config.json": model(lambda f: (f / "config.json").unlink(), "has no config.json"),
    "a config.json that is none": model(text("config.json", "{"), "configuration"),
    "an empty config.json": model(text("config.json", ""), "configuration"),
    "a list as config.json": model(text("config.json", "[1, 2]"), "configuration"),
    "a config.json nested too deeply": model(text("config.json", DEEP), "configuration"),
    "an unknown architecture": model(
        text("config.json", '{"model_type": "<script>"}'), "configuration"
    ),
    "a decoder": model(text("config.json", '{"model_type": "t5"}'), "has a decoder"),
    "code of its own": model(
        text("config.json", '{"model_type": "x", "auto_map": {"AutoConfig": "evil.EvilConfig"}}'),
        "configuration",
    ),
    "no tokenizer": model(lambda _: None, "tokenizer"),
    "a tokenizer.json that is none": model(text("tokenizer.json", "{"), "tokenizer"),
    "pickled weights alone": model(
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "are not read"
    ),
    "an unknown bundle": (
        lambda f: write_task(f / "boxes"),
        ["audit", "boxes", "--model", "bundled:<b>"],
        "unknown model 'bundled:<b>'",
    ),
    "a path that is not there": (
        lambda f: write_task(f / "boxes"),
        ["audit", "boxes", "--model", "../../../nowhere"],
        "does not exist",
    ),
}
