"""Files that nobody wants to be given, by class: what is wrong, the command that meets it, what it should say."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _runs import write_run
from _tasks import write_task

Prepare = Callable[[Path], Any]
Row = tuple[Prepare, list[str], str]
"""Makes files in a folder; the command line, run in that folder; a piece of the message."""

DEEP = "[" * 20_000
DIGITS = "9" * 5_000
ESCAPE = "\x1b[31mred"
BLOCK = 'transform = ["mask"]\nrepresentation = ["bidirectional"]\noutput = ["denoise"]\n'


def text(name: str, content: str | bytes) -> Prepare:
    """One file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def config(content: str | bytes, said: str) -> Row:
    return text("c.toml", content), ["run", "--config", "c.toml", "--out", "out"], said


CONFIGS: dict[str, Row] = {
    "no TOML": config("task = [", "not valid TOML"),
    "a binary file": config(bytes(range(256)), "not UTF-8"),
    "UTF-16": config("seeds = [0]".encode("utf-16"), "not UTF-8"),
    "a byte order mark": config(b"\xef\xbb\xbfseeds = [0]", "not valid TOML"),
    "null characters": config("task = 'a\0b'", "not valid TOML"),
    "an escaped null character": config('task = "a\\u0000b"', "without null characters"),
    "a folder": (
        lambda f: (f / "c.toml").mkdir(),
        ["run", "--config", "c.toml"],
        "cannot read the configuration",
    ),
    "a link to itself": (
        lambda f: (f / "c.toml").symlink_to("c.toml"),
        ["run", "--config", "c.toml"],
        "cannot read the configuration",
    ),
    "nested too deeply": config(f"seeds = {DEEP}", "nested too deeply"),
    "more digits than Python converts": config(f"seeds = [{DIGITS}]", "not valid TOML"),
    "a key twice": config("task = 'a'\ntask = 'b'", "not valid TOML"),
    "a number for a table": config("training = 3", "must be a table"),
    "a table for a number": config("[training.lr]\nx = 1", "c.toml:1: `training.lr` must be"),
    "a list for a table": config("[[meta]]\nengine = 'fused'", "`meta` must be a table"),
    "a text for a list": config("seeds = '0'", "must be a list"),
    "a date for a rate": config("training.lr = 1979-05-27", "`training.lr` must be a number"),
    "true for a seed": config("seeds = [true]", "must be a whole number"),
    "no seed": config("seeds = []", "at least 1"),
    "an infinite rate": config("training.lr = inf", "`training.lr` must be a number above 0"),
    "numbers for primitives": config("primitives = { mask = 3 }", "must be a table of tables"),
    "numbers for corpora": config("external = { in-domain = 3 }", "must be a table of texts"),
    "options of nobody": config("[primitives.nobody]\nx = 1", "unknown primitive 'nobody'"),
    "control characters": config('method = "\\u001b[31mred"', "must be one of"),
    "an unknown key like HTML": config('"<script>" = 1', "is no setting"),
    "ten thousand unknown keys": config(
        "\n".join(f"k{i} = {i}" for i in range(10_000)), "10000 faults"
    ),
    "a negative seed by --set": (
        lambda _: None,
        ["run", "--set", f"seeds=[{DIGITS}]"],
        "seeds",
    ),
    "a nested --set": (lambda _: None, ["run", "--set", f"seeds={DEEP}"], "seeds"),
    "half a character": (lambda _: None, ["run", "--task", "a\udcffb"], "all of it UTF-8"),
}


def space(content: str | bytes, said: str) -> Row:
    return text("s.toml", content), ["list-objectives", "--space", "s.toml"], said


def block(**changed: str) -> str:
    """A block of which one list is something else."""
    lists = {
        "data": '["task"]',
        "transform": '["mask"]',
        "representation": '["bidirectional"]',
        "output": '["denoise"]',
        **changed,
    }
    return "[[block]]\n" + "".join(f"{name} = {value}\n" for name, value in lists.items() if value)


SPACES: dict[str, Row] = {
    "empty": space("", "expected at least one [[block]]"),
    "missing": (lambda _: None, ["list-objectives", "--space", "no.toml"], "cannot read"),
    "no TOML": space("[[block", "not valid TOML"),
    "binary": space(bytes(range(256)), "not valid TOML"),
    "nested too deeply": space(f"block = {DEEP}", "nested too deeply"),
    "too many digits": space(f"block = {DIGITS}", "not valid TOML"),
    "a folder": (
        lambda f: (f / "s.toml").mkdir(),
        ["list-objectives", "--space", "s.toml"],
        "cannot read",
    ),
    "a link to nowhere": (
        lambda f: (f / "s.toml").symlink_to("nowhere"),
        ["list-objectives", "--space", "s.toml"],
        "cannot read",
    ),
    "a block that is no list": space("block = 3", "expected at least one [[block]]"),
    "a block of numbers": space("block = [1, 2]", "expected at least one [[block]]"),
    "a stage that is a text": space(block(output='"denoise"'), "must be a list of names"),
    "a stage of numbers": space(block(output="[1]"), "must be a list of names"),
    "a stage left out": space(block(output=""), "must list at least one primitive"),
    "an empty stage": space(block(output="[]"), "must list at least one primitive"),
    "a primitive of another stage": space(block(output='["mask"]'), "belongs to the stage"),
    "an unknown primitive": space(block(output='["denois"]'), "did you mean 'denoise'"),
    "a name like HTML": space(block(output='["<b>"]'), "unknown primitive '<b>'"),
    "a name that steers terminals": space(
        block(output='["\\u001b[31mred"]'), "unknown primitive '\\x1b[31mred'"
    ),
    "a space's name that is a path": space('name = "../../evil"\n' + block(), "../../evil"),
    "an unknown key": space("blok = 1\n" + block(), "did you mean 'block'"),
    "optional data that no block has": space("optional = ['in-domain']\n" + block(), "optional"),
}


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
        lambda f: (spec('kind = "regression"')(f), train(line("NaN"))(f)), "finite number"
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
    "task.toml: no TOML": task(spec("name = "), "is not TOML"),
    "task.toml: binary": task(spec(bytes(range(256))), "is not TOML"),
    "task.toml: nested too deeply": task(spec(f"header = {DEEP}"), "is not TOML"),
    "task.toml: too many digits": task(spec(f"metric = {DIGITS}"), "is not TOML"),
    "task.toml: wrong types": task(
        spec('name = 3\nfiles = "x"\nheader = "text"\n'), "has 3 fault(s)"
    ),
    "task.toml: a file that is not there": task(
        spec('files = { train = "../../etc/nothing" }'), "does not exist"
    ),
    "task.toml: a file of no kind": task(
        spec('files = { train = "../secret" }'), "secret, does not exist"
    ),
    "task.toml: data in a folder that is not there": task(spec('data = "../x"'), "does not exist"),
    "task.toml: an unknown metric": task(spec('metric = "<script>"'), "unknown metric '<script>'"),
    "task.toml: control characters": task(spec('kind = "\\u001b[31mred"'), "unknown kind"),
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


def run(spoil: Callable[[Path], Any], said: str, *command: str) -> Row:
    """A good finished run of which something is spoilt."""

    def prepare(folder: Path) -> None:
        write_run(folder / "run", {0: 30, 1: 28})
        spoil(folder / "run")

    return prepare, [*(command or ("report",)), "run", *_OUT.get(command[:1], [])], said


_OUT = {(): ["--out", "page.html"], ("report",): ["--out", "page.html"]}


def report(**changed: Any) -> Callable[[Path], Any]:
    """Entries of ``report.json`` replaced."""

    def spoil(folder: Path) -> None:
        path = folder / "report.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changed}), "utf-8")

    return spoil


def seed(**changed: Any) -> Callable[[Path], Any]:
    """Entries of the first seed in ``report.json`` replaced."""

    def spoil(folder: Path) -> None:
        whole = json.loads((folder / "report.json").read_text("utf-8"))
        whole["seeds"][0].update(changed)
        (folder / "report.json").write_text(json.dumps(whole), "utf-8")

    return spoil


def history(content: str | bytes) -> Callable[[Path], Any]:
    return text("seed-0/history.jsonl", content)


def _circle(folder: Path) -> None:
    (folder / "report.json").unlink()
    (folder / "report.json").symlink_to("report.json")


STEP = (
    '{"step": 1, "losses": %s, "weights": {}, "alignments": {}, "norms": {}, "end_task_weight": 1}'
)

RUNS: dict[str, Row] = {
    "missing": (lambda _: None, ["report", "nowhere"], "is no run directory"),
    "a file": (text("run", "a"), ["compare", "run", "run"], "is no run directory"),
    "a link to itself": (lambda f: (f / "run").symlink_to("run"), ["report", "run"], "run"),
    "an empty folder": (lambda f: (f / "run").mkdir(), ["report", "run"], "no finished run"),
    "a report that is none": run(text("report.json", "{"), "report.json is damaged"),
    "a binary report": run(text("report.json", bytes(range(256))), "report.json is damaged"),
    "a list as report": run(text("report.json", "[1]"), "report.json is damaged"),
    "a report nested too deeply": run(text("report.json", DEEP), "nested too deeply"),
    "a report in a circle": run(_circle, "report.json is damaged"),
    "a report of the future": run(report(schema=2), "has the schema 2"),
    "a schema that is none": run(report(schema="<b>"), "has the schema '<b>'"),
    "no seeds": run(report(seeds=[]), "not complete"),
    "seeds that are none": run(report(seeds=[1, "a"]), "seeds[0] is no table"),
    "a seed's name that is a path": run(seed(seed="../../x"), "seeds[0].seed is '../../x'"),
    "a score that is a text": run(seed(test={"accuracy": "high"}), "seeds[0].test.accuracy"),
    "weights that are none": run(report(weights=None), "weights is no table"),
    "a summary that is none": run(report(summary=[]), "summary is no table"),
    "remarks that are none": run(report(remarks="x"), "remarks is no list"),
    "no configuration": run(lambda f: (f / "config.toml").unlink(), "has no config.toml"),
    "a configuration that is none": run(text("config.toml", "["), "not valid TOML"),
    "no history": run(lambda f: (f / "seed-0" / "history.jsonl").unlink(), "the run is damaged"),
    "a history that is none": run(history("{"), "history.jsonl:1 is damaged"),
    "a binary history": run(history(bytes(range(256))), "is damaged"),
    "a history of numbers": run(history("1\n2\n"), "is damaged"),
    "a history without losses": run(history('{"step": 1}\n'), "is damaged"),
    "a loss that is a text": run(history(STEP % '{"end-task": "low"}'), "is damaged"),
    "a loss of too many digits": run(history(STEP % f'{{"end-task": 1{"0" * 400}}}'), "is damaged"),
    "an id that is none": run(history(STEP % '{"<script>": 1}'), "is damaged"),
    "predictions that are none": run(
        text("seed-0/predictions.jsonl", "{"), "predictions.jsonl:1 is damaged"
    ),
    "binary predictions": run(
        text("seed-0/predictions.jsonl", bytes(range(256))), "predictions.jsonl is damaged"
    ),
    "a comparison with itself": run(lambda _: None, "given twice", "compare", "run"),
    "predictions of a run without a model": (
        lambda f: (write_run(f / "run", {0: 30}), (f / "x.txt").write_text("a")),
        ["predict", "run", "x.txt"],
        "is missing",
    ),
    "weights of a run that is none": (
        lambda f: (write_task(f / "boxes"), (f / "w.json").write_text(DEEP)),
        ["run", "--task", "boxes", "--weights", "w.json", "--model", "scratch:tiny"],
        "nested too deeply",
    ),
    "to resume without a configuration": (
        lambda f: (f / "run").mkdir(),
        ["run", "--resume", "--out", "run"],
        "no run to resume",
    ),
    "to resume a binary configuration": (
        lambda f: ((f / "run").mkdir(), (f / "run/config.toml").write_bytes(b"\xff")),
        ["run", "--resume", "--out", "run"],
        "not UTF-8",
    ),
    "a directory that cannot be made": (
        lambda f: (write_task(f / "boxes"), (f / "file").write_text("")),
        ["run", "--task", "boxes", "--model", "scratch:tiny", "--out", "file/out"],
        "cannot write",
    ),
    "a directory in a circle": (
        lambda f: (write_task(f / "boxes"), os.symlink("out", f / "out")),
        ["run", "--task", "boxes", "--model", "scratch:tiny", "--out", "out"],
        "out",
    ),
}

TABLE: dict[str, dict[str, Row]] = {
    "configs": CONFIGS,
    "spaces": SPACES,
    "tasks": TASKS,
    "corpora": CORPORA,
    "models": MODELS,
    "runs": RUNS,
}
