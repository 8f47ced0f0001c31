"""Which columns a file to predict from needs, and which run directories can answer."""

import json

import pytest
from _runs import write_run

from aang_core.errors import RunError, TaskError
from aang_core.registry.registry import load_registry
from aang_core.train.finish.export import chosen_model, read_examples


def model_of(folder, **changed):
    path = write_run(folder / "run", {0: 30}, changed=changed)
    (path / "model").mkdir()
    return chosen_model(path, load_registry())


def test_columns_that_only_training_needs_are_not_asked_for(tmp_path):
    asked = model_of(tmp_path, reads=["text", "tags"])
    file = tmp_path / "new.jsonl"
    file.write_text('{"text": "iron"}\n{"text": "tin", "tags": ["metal"]}\n', "utf-8")
    _, examples = read_examples(asked, file)
    assert examples == [{"text": "iron"}, {"text": "tin"}]
    lines = tmp_path / "new.txt"
    lines.write_text("iron\n", "utf-8")
    assert read_examples(asked, lines)[1] == [{"text": "iron"}]


def test_columns_that_the_answer_depends_on_are_asked_for(tmp_path):
    asked = model_of(tmp_path, reads=["text", "text_pair", "tags"])
    file = tmp_path / "new.jsonl"
    file.write_text('{"text": "iron"}\n', "utf-8")
    with pytest.raises(TaskError, match=r"no column 'text_pair'.* reads 'text', 'text_pair', and"):
        read_examples(asked, file)


def test_a_report_without_a_seed_is_damaged(tmp_path):
    with pytest.raises(RunError, match="must be a list of at least one seed"):
        model_of(tmp_path, seeds=[])


def test_folders_of_single_seeds_answer_together(tmp_path):
    for seed in (3, 5):
        path = write_run(tmp_path / f"seed-{seed}", {seed: 30})
        (path / "model").mkdir()
    asked = chosen_model(tmp_path, load_registry(), seed=5)
    assert (asked.seeds, asked.model) == ((3, 5), tmp_path / "seed-5" / "model")
    with pytest.raises(RunError, match="has no seed 4; it has 3, 5"):
        chosen_model(tmp_path, load_registry(), seed=4)


def test_a_run_is_read_with_its_checks(tmp_path):
    path = write_run(tmp_path / "run", {0: 30})
    report = json.loads((path / "report.json").read_text("utf-8"))
    report["seeds"][0]["engine_check"] = {"disagreement": "small"}
    (path / "report.json").write_text(json.dumps(report), "utf-8")
    with pytest.raises(RunError, match=r"seeds\[0\]\.engine_check\.allowed` is missing"):
        chosen_model(path, load_registry())
