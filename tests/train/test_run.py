"""Whole runs of a tiny encoder: methods, kinds of task, seeds, what is left on disk."""

import json
import os
import subprocess
import sys

import pytest
from _tasks import examples, settings, untimed, write_task

import aang_core as aang
from aang_core.config.file import load_config
from aang_core.config.settings import METHODS, WITHOUT_OBJECTIVES
from aang_core.errors import AangError
from aang_core.method.gradient import dev_gradient
from aang_core.registry.registry import load_registry

REPORT_KEYS = (
    "schema task space method model metric objectives engine seeds summary weights versions plugins"
)
SEED_KEYS = "seed steps best_step dev test seconds peak_memory_mib"


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory):
    """A run of two seeds."""
    out = tmp_path_factory.mktemp("runs") / "two"
    return aang.run(task=str(task), seeds=[0, 3], train_rows=12, out=out, **settings())


def read(path):
    return json.loads(path.read_text("utf-8"))


def history(directory):
    return [
        json.loads(line) for line in (directory / "history.jsonl").read_text("utf-8").splitlines()
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_reports(method, task, tmp_path):
    extra = {"training": {"pretrain_steps": 2}} if method == "pretrain-finetune" else {}
    out = tmp_path / "run"
    report = aang.run(task=str(task), method=method, out=out, **settings(**extra))
    written = read(out / "report.json")
    assert written == json.loads(json.dumps(report.as_mapping()))
    assert set(REPORT_KEYS.split()) <= written.keys()
    (seed,) = written["seeds"]
    assert set(SEED_KEYS.split()) <= seed.keys()
    assert written["method"] == method
    assert written["plugins"].keys() == {p.provenance.plugin for p in load_registry().plugins}
    assert written["objectives"] == (0 if method in WITHOUT_OBJECTIVES else 24)
    joint = method in ("aang", "tartan", "static")  # the others end with the end-task alone
    assert len(written["weights"]["objectives"]) == (24 if joint else 0)
    assert (written["weights"]["end_task"] == 1.0) is not joint
    assert set(seed["dev"]) == set(seed["test"]) == {"accuracy", "f1"}
    trains = method != "probe"
    assert (seed["best_step"] > 0) is (seed["steps"] > 0) is trains
    assert seed["best_step"] <= seed["steps"]
    assert load_config(out / "config.toml").method == method
    steps = history(out)
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    shares = {line["end_task_weight"] for line in steps}
    if trains and not joint:
        assert shares == ({1.0} if method == "finetune" else {0.0, 1.0})
    learns = method in ("aang", "tartan")
    assert seed["alignment_layers"] == ({"used": 2, "of": 3} if learns else None)
    assert any(line["alignments"] for line in steps) is learns
    assert len(written["weights"]["objectives"].values()) == 0 or learns is (
        len(set(written["weights"]["objectives"].values())) > 1
    )


def test_the_history_has_the_weights_of_objectives_that_got_no_rows(task, tmp_path):
    few = {"auxiliary_rows": 8}
    everyone = settings(training=few, meta={"objectives_per_step": 0})
    aang.run(task=str(task), out=tmp_path / "run", **everyone)
    steps = history(tmp_path / "run")
    assert all(len(line["losses"]) < 1 + len(line["weights"]) for line in steps)
    assert all(len(line["weights"]) == 24 for line in steps)
    assert all(sum(line["weights"].values()) == pytest.approx(1) for line in steps)


@pytest.mark.parametrize("method", ["static", "finetune", "pretrain-finetune"])
def test_methods_without_a_search_compute_no_dev_gradient(method, task, tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a dev gradient was computed")

    monkeypatch.setattr(dev_gradient.DevGradient, "at", forbidden)
    short = settings(training={"pretrain_steps": 1, "max_steps": 1, "final_epochs": 0})
    report = aang.run(task=str(task), method=method, out=tmp_path / "run", **short)
    assert report.seeds[0].steps >= 1


def test_the_same_inputs_give_the_same_report(task, finished, tmp_path):
    again = aang.run(
        task=str(task), seeds=[0, 3], train_rows=12, out=tmp_path / "again", **settings()
    )
    assert untimed(again.as_mapping()) == untimed(finished.as_mapping())
    for seed in ("seed-0", "seed-3"):
        for name in ("history.jsonl", "model/model.safetensors", "predictions.jsonl"):
            ours, theirs = again.directory / seed / name, finished.directory / seed / name
            assert ours.read_bytes() == theirs.read_bytes()


def test_several_seeds_have_a_folder_each_and_a_summary(finished):
    top = finished.directory
    assert {path.name for path in top.iterdir()} >= {
        "config.toml",
        "report.json",
        "seed-0",
        "seed-3",
    }
    summary = finished.summary["dev"]
    scores = [seed.dev["accuracy"] for seed in finished.seeds]
    assert summary["mean"] == pytest.approx(sum(scores) / 2)
    assert summary["std"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    first, second = (history(top / f"seed-{n}") for n in (0, 3))
    assert first[0]["losses"] != second[0]["losses"]
    assert not list(top.rglob("step-*"))
    assert (top / "seed-0" / "checkpoint" / "best.safetensors").is_file()


@pytest.mark.parametrize("shape", ["pair", "regression", "unlabelled"])
def test_other_kinds_of_tasks(shape, tmp_path):
    task = write_task(tmp_path / "task", shape)
    out = tmp_path / "run"
    report = aang.run(task=str(task), out=out, **settings(training={"max_steps": 2}))
    (seed,) = report.seeds
    metrics = {"pearson", "spearman"} if shape == "regression" else {"accuracy", "f1"}
    assert metrics <= set(seed.dev)
    assert (seed.test is None) is (shape == "unlabelled")
    if shape == "unlabelled":
        assert report.summary["test"] is None
        assert any("no labels" in remark for remark in report.remarks)
    lines = (out / "predictions.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 10
    assert ("value" if shape == "regression" else "label") in json.loads(lines[0])


LOADING = """
import importlib.abc, json, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"aang_core", "aang_text", "aang_cli"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from transformers import AutoModelForSequenceClassification, pipeline
folder, texts = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForSequenceClassification.from_pretrained(folder)
answers = pipeline("text-classification", folder, top_k=None, device="cpu")(texts)
print(json.dumps([model.config.id2label[0], answers]))
"""


def test_the_model_answers_through_transformers_alone(finished):
    folder = finished.directory / "seed-0"
    texts = [row["text"] for row in examples(10, 34)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADING, str(folder / "model"), json.dumps(texts)],
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    first, answers = json.loads(done.stdout.splitlines()[-1])
    assert first == "fruit"
    own = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for answer, ours in zip(answers, own, strict=True):
        theirs = {each["label"]: each["score"] for each in answer}
        assert theirs == pytest.approx(ours["probabilities"], abs=1e-4)
    assert (folder / "model" / "README.md").is_file()


def test_a_watcher_hears_everything(task, tmp_path):
    heard = []

    class Listener(aang.Callback):
        def on_begin(self, directory):
            heard.append(("begin", directory))

        def on_step(self, session, record, progress):
            heard.append(("step", progress.done))

        def on_evaluation(self, session, progress):
            heard.append(("evaluation", progress.done))

    out = tmp_path / "run"
    short = settings(method="finetune", training={"final_epochs": 0})
    aang.run(task=task, out=out, callbacks=Listener(), **short)
    steps = [("step", 1), ("step", 2), ("evaluation", 2), ("step", 3), ("step", 4)]
    assert heard == [("begin", out), *steps, ("evaluation", 4)]


def test_several_callbacks_and_the_former_names(task, tmp_path):
    heard = []

    class Listener(aang.Watcher):
        def __init__(self, name):
            self.name = name

        def on_seed(self, session):
            heard.append(self.name)

    short = settings(method="finetune", training={"max_steps": 1, "final_epochs": 0})
    a, b, c = map(Listener, "abc")
    with pytest.warns(DeprecationWarning, match="watcher= is now callbacks="):
        aang.run(task=task, out=tmp_path / "run", callbacks=[a, b], watcher=c, **short)
    assert heard == ["a", "b", "c"]


def test_a_long_text_is_cut_and_counted(tmp_path):
    task = write_task(tmp_path / "task")
    short = settings(method="finetune", training={"max_length": 8, "max_steps": 1})
    report = aang.run(task=str(task), out=tmp_path / "run", **short)
    assert report.seeds[0].remarks == (
        "44 of 44 examples are longer than 8 positions and were cut",
    )


def test_a_fault_found_before_the_first_step_leaves_nothing(task, tmp_path):
    out = tmp_path / "runs" / "new"
    with pytest.raises(AangError):
        aang.run(task=str(task), out=out, **settings(device="nowhere"))
    assert not out.exists()
    out.mkdir(parents=True)  # the user's own, so it stays
    with pytest.raises(AangError):
        aang.run(task=str(task), out=out, **settings(device="nowhere"))
    assert list(out.iterdir()) == []
    aang.run(task=str(task), out=out, **settings(method="finetune", training={"max_steps": 1}))


def test_an_occupied_directory_is_left_alone(task, finished, tmp_path):
    before = (finished.directory / "report.json").read_bytes()
    with pytest.raises(AangError, match="--resume"):
        aang.run(task=str(task), out=finished.directory, **settings())
    assert (finished.directory / "report.json").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(AangError, match=r"not an empty folder; choose another --out$"):
        aang.run(task=str(task), out=tmp_path, **settings())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_example_of_the_documents_runs(root, task, tmp_path):
    example = root / "docs" / "examples" / "api.py"
    done = subprocess.run(
        [sys.executable, str(example), str(task), str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "24 objectives" in done.stdout
    assert "'transform'" in done.stdout
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
