"""Findings on hand-made tasks whose faults are known, and on the real task whose faults are published."""

import json

import pytest
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.data.audit import audit_task, findings, seen_in_training, token_lengths
from aang_core.data.task import load_task
from aang_core.testing import tiny_backbone, tiny_task
from aang_core.train.session import task_rows

TRAIN = [
    ("the cat sat on the mat", "a"),
    ("The cat  sat on the mat", "b"),
    ("a dog ran over the hill and far away from all of us today", "b"),
    ("nothing else", "a"),
]
DEV = [("fresh words in dev", "a"), ("other words in dev", "b")]
TEST = [
    ("THE CAT sat on the mat", "a"),
    ("a dog ran over the hill and far away from all of us yesterday", "b"),
    ("words that stand in the corpus", "a"),
    ("entirely new", "b"),
]


@pytest.fixture
def folder(tmp_path):
    for name, rows in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "in-domain.txt").write_text(
        "An opening line\nand words that stand in\nthe corpus are here", encoding="utf-8"
    )
    return tmp_path


def load(folder, **external):
    return load_task(str(folder), reads=("text", "text_pair"), registered={}, external=external)


def test_every_fault_is_counted(folder):
    found = audit_task(load(folder))
    assert found["splits"] == {"train": 4, "dev": 2, "test": 4}
    assert found["in_train"] == {"dev": 0, "test": 1}
    assert found["near"] == {"dev": 0, "test": 1}
    assert found["duplicates"] == {"train": 1, "dev": 0, "test": 0}
    assert found["conflicts"] == 1
    assert found["labels"]["train"] == {"a": 2, "b": 2}
    assert found["lengths"]["dev"] == {"mean": 4.0, "median": 4.0, "p95": 4.0, "max": 4}
    assert found["external"] == {"in-domain": {"dev": 0, "test": 1}}
    assert findings(found) == [
        "1 of 4 test examples stand in train",
        "1 test examples stand nearly in train",
        "repeated rows: 1 in train",
        "1 example has more than one label",
        "1 test examples stand in the corpus in-domain",
    ]
    assert seen_in_training(load(folder)) == [True, False, False, False]


def test_the_fingerprint_follows_the_evaluation_data_alone(folder):
    first = audit_task(load(folder))["fingerprint"]
    train = folder / "train.jsonl"
    train.write_text(train.read_text() + '\n{"text": "more", "label": "a"}')
    assert audit_task(load(folder))["fingerprint"] == first
    test = folder / "test.jsonl"
    test.write_text(
        test.read_text().replace('"entirely new", "label": "b"', '"entirely new", "label": "a"')
    )
    assert audit_task(load(folder))["fingerprint"] != first


def test_what_would_take_long_is_left_out_unless_asked_for(folder, monkeypatch):
    monkeypatch.setattr("aang_core.data.audit.UNASKED_ROWS", 3)
    monkeypatch.setattr("aang_core.data.audit.UNASKED_BYTES", 10)
    found = audit_task(load(folder), thorough=False)
    assert found["near"] == {"dev": None, "test": None}
    assert found["external"] == {"in-domain": None}
    assert len(findings(found)) == 3


def test_tokens_say_what_a_run_would_cut():
    lengths = {"train": [len(row) for row in task_rows(tiny_backbone(), tiny_task(), "train")]}
    whole = token_lengths(lengths, 10_000)["train"]
    cut = token_lengths(lengths, int(whole["max"]) - 1)["train"]
    assert whole["cut_rows"] == whole["cut_tokens"] == 0
    assert 0 < cut["cut_tokens"] <= cut["cut_rows"] <= 1


def test_words_of_a_token_task_count_as_its_text(tmp_path):
    words = ["five", "words", "are", "enough", "here"]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("Before. " + " ".join(words) + " After.", encoding="utf-8")
    for split, own in (("train", words), ("dev", ["other", "words"]), ("test", words)):
        rows = [{"text": own, "label": ["x", "y"] + ["x"] * (len(own) - 2)}]
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(rows[0]), encoding="utf-8")
    (tmp_path / "task.toml").write_text('kind = "token"\n', encoding="utf-8")
    found = audit_task(load(tmp_path, **{"in-domain": str(corpus)}))
    assert found["in_train"] == {"dev": 0, "test": 1}
    assert found["external"]["in-domain"] == {"dev": 0, "test": 1}
    assert found["lengths"]["test"]["mean"] == 5
    assert found["labels"]["train"] == {"x": 4, "y": 1}


def test_the_published_leak_of_acl_arc(shared_data):
    found = audit_task(load(shared_data / "acl-arc"))
    assert found["in_train"] == {"dev": 43, "test": 52}
    assert found["duplicates"]["train"] == 418


def test_the_command_prints_one_document_and_remarks_elsewhere(folder):
    result = CliRunner().invoke(main, ["audit", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["in_train"] == {"dev": 0, "test": 1}
    assert "1 of 4 test examples stand in train" in result.stderr


def test_strict_fails_where_something_was_found_and_tables_are_for_people(folder):
    result = CliRunner().invoke(main, ["audit", str(folder), "--strict"])
    assert result.exit_code == 1
    assert "in train" in result.stdout
    for split in ("train", "dev", "test"):
        rows = [json.dumps({"text": f"{split} {i}", "label": "ab"[i % 2]}) for i in range(4)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    clean = CliRunner().invoke(main, ["audit", str(folder), "--strict"])
    assert (clean.exit_code, clean.stderr) == (0, "nothing was found\n"), clean.output
