"""A real short run that logs: what TensorBoard's files hold is what ``history.jsonl`` holds; refusals by message."""

import json

import attrs
import pytest
from _plugins import registry_of

import aang_core
from aang_core.analysis.compare import compare_runs
from aang_core.errors import ConfigError
from aang_core.registry.discovery import FailedPlugin, Provenance
from aang_core.registry.records import Logger
from aang_core.registry.registry import load_registry
from aang_core.rundir.finished import read_runs
from aang_core.train.loggers import chosen_loggers

SETTINGS = {
    "model": "scratch:tiny",
    "space": "td",
    "train_rows": 40,
    "training": {
        "max_steps": 4,
        "eval_every": 2,
        "final_epochs": 0,
        "max_length": 16,
        "end_task_rows": 4,
        "auxiliary_rows": 8,
    },
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    for split, rows in (("train", 60), ("dev", 12), ("test", 12)):
        lines = [
            {"text": f"{split} number {i} of {i % 2}", "label": "ab"[i % 2]} for i in range(rows)
        ]
        if split == "test":
            lines[0]["text"] = "TRAIN number 0  of 0"
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module")
def logged(task, tmp_path_factory, pages):
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    out = tmp_path_factory.mktemp("runs") / "logged"
    aang_core.run(task=task, out=out, seeds=[0, 1], log=["tensorboard"], **SETTINGS)
    return out


def test_tensorboard_holds_the_history(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for seed in (0, 1):
        folder = logged / f"seed-{seed}"
        events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()
        for text in (folder / "history.jsonl").read_text("utf-8").splitlines():
            line = json.loads(text)
            for kind, table in (("loss", "losses"), ("weight", "weights"), ("norm", "norms")):
                for name, value in line[table].items():
                    found = {e.step: e.value for e in events.Scalars(f"{kind}/{name}")}
                    assert found[line["step"]] == pytest.approx(value, rel=1e-6)
        assert [e.step for e in events.Scalars("dev/accuracy")] == [2, 4]


def test_the_run_leaves_its_page_its_audit_and_a_deduplicated_score(logged):
    report = json.loads((logged / "report.json").read_text("utf-8"))
    assert report["audit"]["in_train"] == {"dev": 0, "test": 1}
    rows = [
        json.loads(t) for t in (logged / "seed-0" / "predictions.jsonl").read_text().splitlines()
    ]
    assert [row["gold"] for row in rows] == ["a", "b"] * 6
    assert rows[1]["inputs"] == {"text": "test number 1 of 1"}
    right = [row["gold"] == row["label"] for row in rows]
    seed = report["seeds"][0]
    assert seed["test"]["accuracy"] == pytest.approx(sum(right) / 12)
    assert seed["test_deduplicated"]["accuracy"] == pytest.approx(sum(right[1:]) / 11)
    assert report["summary"]["test_deduplicated"]["metrics"].keys() == {"accuracy", "f1"}
    assert (logged / "report.html").exists()


def test_a_recipe_of_the_run_is_kept_by_static_and_the_two_compare(logged, task, tmp_path):
    aang_core.run(
        task=task,
        out=tmp_path / "static",
        seeds=[0, 1],
        method="static",
        weights=str(logged),
        **SETTINGS,
    )
    ours = json.loads((tmp_path / "static" / "report.json").read_text("utf-8"))["weights"]
    theirs = json.loads((logged / "report.json").read_text("utf-8"))["weights"]
    assert ours["objectives"] == pytest.approx(theirs["objectives"], rel=1e-9)
    assert ours["end_task"] == pytest.approx(theirs["end_task"])
    rows = compare_runs(read_runs([logged, tmp_path / "static"])).rows
    assert [row["method"] for row in rows] == ["aang", "static"]


def test_unknown_loggers_and_missing_libraries_are_named_together():
    registry = load_registry()
    record = Logger(
        name="far", summary="", factory="a:b", needs=("no_such_library",), install="pip install far"
    )
    entry = registry.loggers["tensorboard"]
    far = {"far": attrs.evolve(entry, record=record)}
    registry = attrs.evolve(registry, loggers={**registry.loggers, **far})
    with pytest.raises(ConfigError) as caught:
        chosen_loggers(["far", "tensorbord"], registry)
    message = str(caught.value)
    assert "needs no_such_library, which is not installed: pip install far" in message
    assert "did you mean 'tensorboard'" in message


def test_a_refused_logger_leaves_nothing_behind(task, tmp_path):
    with pytest.raises(ConfigError, match="unknown logger"):
        aang_core.run(task=task, out=tmp_path / "run", log=["nowhere"], **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_says_which_plugin_failed_to_import():
    origin = Provenance(plugin="lost", distribution="lost-dist", version="3")
    failed = FailedPlugin(provenance=origin, cause="ImportError: no wandb")
    registry = attrs.evolve(registry_of(), failed=(failed,))
    with pytest.raises(ConfigError, match=r"'lost' .* failed to import: ImportError: no wandb"):
        chosen_loggers(["wandb"], registry)
