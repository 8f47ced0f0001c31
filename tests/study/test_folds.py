"""Cross-validation: every labelled row is test once, scores are pooled, and the final model sees all rows."""

import json
import math
import shutil

import pytest
from _runs import NAMES, write_run
from _tasks import examples, settings, write_split
from aang_cli.main import main
from click.testing import CliRunner
from sklearn.metrics import f1_score

from aang_core.config.settings import RunConfig
from aang_core.data.task import Task
from aang_core.errors import ConfigError, RunError, TaskError
from aang_core.registry.registry import load_registry
from aang_core.rundir.finished import read_run, read_runs
from aang_core.study import folds
from aang_core.study.folds import cross_validate

ROWS = 24


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """One file, with two texts that stand in it twice."""
    folder = tmp_path_factory.mktemp("task")
    rows = examples(ROWS - 2)
    write_split(folder, "tickets", [*rows, rows[0], rows[3]])
    return folder / "tickets.jsonl"


def config(task, **changed) -> RunConfig:
    return RunConfig.from_mapping({"task": str(task), **settings(**changed)})


@pytest.fixture(scope="module")
def validated(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "folds"
    return out, cross_validate(config(task), 3, out, load_registry())


def _rows(folder, split) -> list[str]:
    lines = (folder / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_every_row_is_test_once_and_never_seen_before(validated, task):
    out, _ = validated
    tested = []
    for number in (1, 2, 3):
        folder = out / "data" / f"fold-{number}"
        train, dev, test = (_rows(folder, split) for split in ("train", "dev", "test"))
        assert not set(test) & {*train, *dev}
        assert not set(dev) & set(train)
        assert len(train) + len(dev) + len(test) == ROWS
        tested += test
    everything = [json.loads(line)["text"] for line in task.read_text("utf-8").splitlines()]
    assert sorted(tested) == sorted(everything)


def test_the_pooled_score_is_that_of_all_predictions(validated):
    out, found = validated
    rows = [
        json.loads(line)
        for number in (1, 2, 3)
        for line in (out / f"fold-{number}" / "predictions.jsonl").read_text("utf-8").splitlines()
    ]
    share = sum(row["gold"] == row["label"] for row in rows) / len(rows)
    assert (found["rows"], found["metric"]) == (ROWS, "accuracy")
    assert found["score"] == pytest.approx(share)
    assert found["standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / ROWS))
    assert found["majority"] == 0.5
    assert sorted(fold["rows"] for fold in found["folds"]) == [7, 8, 9]  # repeats stay together
    assert json.loads((out / "folds.json").read_text("utf-8")) == found


def test_the_final_model_has_all_rows_and_the_folds_length_and_weights(validated):
    out, found = validated
    best = sorted(step for fold in found["folds"] for step in fold["best_step"])[1]
    assert found["final"]["steps"] == min(best, 4)
    report = json.loads((out / "final" / "report.json").read_text("utf-8"))
    assert report["method"] == "static"
    assert report["seeds"][0]["train_rows"] == ROWS
    assert report["seeds"][0]["steps"] == found["final"]["steps"]
    assert report["summary"]["test"] is None
    folds = [json.loads((out / f"fold-{n}" / "report.json").read_text("utf-8")) for n in (1, 2, 3)]
    for name, weight in report["weights"]["objectives"].items():
        mean = sum(fold["weights"]["objectives"][name] for fold in folds) / 3
        assert weight == pytest.approx(mean, rel=1e-4)
    assert (out / "final" / "model" / "config.json").exists()


def test_it_goes_on_where_it_stopped_and_refuses_another(validated, task, tmp_path):
    out, found = validated
    copy = tmp_path / "folds"
    shutil.copytree(out, copy)
    with pytest.raises(RunError, match="holds a cross-validation already"):
        cross_validate(config(task), 3, copy, load_registry())
    with pytest.raises(RunError, match="folds is 4 here and 3 there"):
        cross_validate(config(task), 4, copy, load_registry(), resume=True)
    again = cross_validate(config(task), 3, out, load_registry(), resume=True)
    assert again == found


def test_in_processes_and_by_the_command_it_is_the_same(validated, task, tmp_path):
    _, found = validated
    path = tmp_path / "run.toml"
    from aang_core.config.file import dump_config

    path.write_text(dump_config(config(task)), "utf-8")
    words = ["run", "--config", str(path), "--folds", "3", "--jobs", "2", "--no-final", "--json"]
    done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    other = json.loads(done.stdout)
    assert other["final"] is None
    assert (other["score"], other["said"]) == (found["score"], found["said"])


def test_what_folds_cannot_do_is_said(task, tmp_path):
    registry = load_registry()
    with pytest.raises(ConfigError, match="leave out train_rows and split_anew"):
        cross_validate(
            config(task, train_rows=8, split_anew=[0.2, 0.2]), 3, tmp_path / "a", registry
        )
    with pytest.raises(TaskError, match="13 folds need at least 26 labelled rows"):
        cross_validate(config(task), 13, tmp_path / "b", registry)
    usage = CliRunner().invoke(main, ["run", "--task", str(task), "--folds", "3"])
    assert usage.exit_code == 2
    assert "--folds needs --out" in usage.output


def test_unbalanced_classes_are_scored_by_macro_f1_as_everywhere(tmp_path):
    counts = {"no": 50, "yes": 10, "<b>maybe</b>": 40}
    audit = {"kind": "class", "splits": {"test": 40}, "labels": {"train": counts}}
    paths = [write_run(tmp_path / f"fold-{n}", {0: n}, audit=audit) for n in (20, 30)]
    task = Task(name="t", kind="class", metric="accuracy", splits={}, label_names=NAMES)
    found = folds._result(task, read_runs(paths))
    rows = [row for path in paths for row in read_run(path).predictions(0)]
    gold, said = ([row[key] for row in rows] for key in ("gold", "label"))
    assert found["metric"] == "f1"
    assert found["score"] == pytest.approx(f1_score(gold, said, average="macro"))
    assert folds._said(found).startswith("f1 over all 80 labelled rows")
