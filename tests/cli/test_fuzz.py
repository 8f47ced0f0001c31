"""Parsers meet what Hypothesis thinks of: configurations, spaces, tasks, run directories and checkpoints.

Whatever the bytes, a reader gives a value or raises an `AangError`. The gate tries EXAMPLES for each reader, always the
same ones; ``AANG_FUZZ=10000 pytest tests/test_fuzz.py`` tries more, other ones each time.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import tomli_w
import torch
from _runs import write_run
from _tasks import write_task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aang_core.analysis.history import read_history
from aang_core.analysis.page.page import build_story, page
from aang_core.config.fields import rules_of
from aang_core.config.file import build_config, dump_config, load_config
from aang_core.config.settings import SECTIONS, RunConfig
from aang_core.data.task import load_task
from aang_core.errors import AangError
from aang_core.registry.spaces import read_space
from aang_core.rundir.finished import read_run
from aang_core.rundir.recipe import read_recipe
from aang_core.train import checkpoint
from aang_core.train.checkpoint import Checkpoint, newest

EXAMPLES = 60
MORE = int(os.environ.get("AANG_FUZZ", "0"))
fuzz = settings(
    max_examples=MORE or EXAMPLES,
    derandomize=not MORE,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

WORDS = st.text(max_size=12) | st.sampled_from(["mask", "task", "denoise", "text", "label", "<b>"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
TOML = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [*rules_of(RunConfig), *SECTIONS, "external", "primitives", *rules_of(SECTIONS["training"])]
)
CONFIGS = st.dictionaries(KEYS | WORDS, TOML | st.dictionaries(KEYS, TOML, max_size=3), max_size=5)
STAGES = st.sampled_from(["data", "transform", "representation", "output"])
NAMES = st.lists(st.sampled_from(["task", "mask", "denoise", "bidirectional"]) | WORDS, max_size=3)
BLOCKS = st.lists(st.dictionaries(STAGES | WORDS, NAMES | TOML, max_size=5), max_size=3)
SPACES = st.dictionaries(
    st.sampled_from(["name", "summary", "source", "optional"]) | WORDS, TOML, max_size=3
).flatmap(lambda top: (BLOCKS | TOML).map(lambda blocks: {**top, "block": blocks}))
SPECS = st.dictionaries(
    st.sampled_from(
        ["name", "metric", "kind", "data", "files", "columns", "header", "label_names", "external"]
    ),
    TOML | st.sampled_from(["class", "token", "multilabel", "regression", "accuracy", "pearson"]),
    max_size=4,
)
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={"text": PLAIN, "label": PLAIN, "text_pair": PLAIN}),
    max_size=6,
)


def tame(read, *arguments):
    """What a reader gives, or None where it refuses in words."""
    try:
        return read(*arguments)
    except AangError:
        return None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def toml_bytes(value) -> bytes:
    return tomli_w.dumps(value).encode("utf-8", "surrogatepass")


@fuzz
@given(st.binary(max_size=200) | CONFIGS.map(toml_bytes))
def test_configurations(place, data):
    """What is read is written back to the same."""
    path = place / "config.toml"
    path.write_bytes(data)
    if (config := tame(load_config, path)) is not None:
        path.write_text(dump_config(config), "utf-8")
        assert load_config(path) == config


@fuzz
@given(
    st.lists(
        st.text(max_size=30) | KEYS.flatmap(lambda k: st.text(max_size=9).map(lambda v: f"{k}={v}"))
    )
)
def test_settings_on_the_command_line(assignments):
    tame(build_config, None, {}, assignments)


@fuzz
@given(st.binary(max_size=200) | SPACES.map(toml_bytes))
def test_spaces(place, data):
    path = place / "space.toml"
    path.write_bytes(data)
    tame(read_space, path)


def _jsonl(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")


@fuzz
@given(
    st.sampled_from(["jsonl", "csv", "tsv", "parquet"]),
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))
    | ROWS.map(_jsonl),
    st.none() | SPECS.map(toml_bytes) | st.binary(max_size=80),
)
def test_tasks(place, suffix, data, spec):
    """A folder with a good dev split, and anything as train and ``task.toml``."""
    folder = place / "task"
    shutil.rmtree(folder, ignore_errors=True)
    write_task(folder)
    (folder / "train.jsonl").unlink()
    (folder / f"train.{suffix}").write_bytes(data)
    if spec is not None:
        (folder / "task.toml").write_bytes(spec)
    reads = ("text", "text_pair")
    found = tame(lambda: load_task(str(folder), reads=reads, registered={}, external={}))
    assert found is None or len(found.splits["train"]) > 0


@pytest.fixture(scope="module")
def finished(place):
    """A good run's files."""
    run = write_run(place / "run", {0: 30})
    names = ("report.json", "config.toml", "history.jsonl", "predictions.jsonl")
    return run, {name: (run / name).read_bytes() for name in names}


@st.composite
def mutations(draw):
    """A change of some bytes: cut, overwritten, doubled."""
    kind = draw(st.sampled_from(["cut", "put", "twice"]))
    where, what = draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=8))

    def change(data: bytes) -> bytes:
        at = int(where * len(data))
        put = data[:at] + what + data[at + len(what) :]
        return {"cut": data[:at], "put": put, "twice": data[:at] + data[at // 2 :]}[kind]

    return change


def _read_whole(run: Path) -> None:
    story = build_story(read_run(run), [])
    if MORE:  # the drawing takes half a second
        page(story, [], [])


@fuzz
@given(
    st.sampled_from(["report.json", "config.toml", "history.jsonl", "predictions.jsonl"]),
    mutations() | st.binary(max_size=60).map(lambda data: lambda _: data),
)
def test_run_directories(finished, name, change):
    run, files = finished
    for each, data in files.items():
        (run / each).write_bytes(change(data) if each == name else data)
    tame(_read_whole, run)
    tame(read_history, run / "history.jsonl")
    tame(read_recipe, run)


@fuzz
@given(st.data())
def test_reports_with_other_values(finished, data):
    """One entry of ``report.json``, wherever it is, becomes any other value."""
    run, files = finished
    for each, content in files.items():
        (run / each).write_bytes(content)
    report = json.loads(files["report.json"])
    inner = report
    while isinstance(inner, (dict, list)) and inner:
        keys = sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = data.draw(st.sampled_from(keys))
        deeper = isinstance(inner[key], (dict, list)) and inner[key] and data.draw(st.booleans())
        if not deeper:
            inner[key] = data.draw(PLAIN)
            break
        inner = inner[key]
    (run / "report.json").write_bytes(json.dumps(report).encode("utf-8", "surrogatepass"))
    tame(_read_whole, run)


@pytest.fixture(scope="module")
def checkpoints(place):
    """A folder with one checkpoint of a few tensors, and its files."""
    folder = place / "seed"
    facts = {
        "progress": {"best_score": None, "done": 3},
        "history": {
            "bytes": 0,
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        },
    }
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2), "c": torch.zeros(0)}
    checkpoint.write(folder / "checkpoint", 3, Checkpoint(tensors=tensors, facts=facts))
    (folder / "history.jsonl").touch()
    place = folder / "checkpoint" / "step-000003"
    return folder, {path: path.read_bytes() for path in place.iterdir()}


@fuzz
@given(st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(checkpoints, second, where, bit):
    folder, files = checkpoints
    chosen = sorted(files)[second]
    for path, data in files.items():
        changed = bytearray(data)
        if path == chosen:
            changed[int(where * len(data))] ^= 1 << bit
        path.write_bytes(changed)
    found = newest(folder)
    if found.saved is not None:  # a space between two tokens of JSON says nothing
        assert json.loads(chosen.read_bytes()) == json.loads(files[chosen])


@fuzz
@given(mutations())
def test_a_checkpoint_cut_short_or_overwritten_is_refused_in_words(checkpoints, change):
    folder, files = checkpoints
    for path, data in files.items():
        path.write_bytes(change(data))
    found = newest(folder)
    assert (found.saved is None) == bool(found.remarks)
