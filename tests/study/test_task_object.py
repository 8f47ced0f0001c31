"""A task made in Python goes into `run` as it is, and what would need to read it again says so."""

import attrs
import pytest
from datasets import Dataset

import aang_core
from aang_core.errors import ConfigError, TaskError
from aang_core.rundir.report import read_report

TRAINING = {
    "max_steps": 2,
    "eval_every": 1,
    "final_epochs": 0,
    "max_length": 16,
    "end_task_rows": 4,
    "auxiliary_rows": 8,
}
SETTINGS = {"model": "scratch:tiny", "space": "td", "training": TRAINING}


def _split(name: str, rows: int) -> Dataset:
    texts = [f"{name} number {i} is {'even' if i % 2 == 0 else 'odd'}" for i in range(rows)]
    return Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(rows)]})


@pytest.fixture(scope="module")
def task() -> aang_core.Task:
    return aang_core.Task(
        name="parity",
        kind="class",
        metric="accuracy",
        splits={"train": _split("train", 12), "dev": _split("dev", 6)},
        label_names=("even", "odd"),
        unlabelled=_split("more", 10).remove_columns("label"),
    )


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return aang_core.run(task=task, out=out, **SETTINGS)


def test_a_task_object_is_trained_on_and_the_configuration_says_so(finished):
    report = read_report(finished.directory)
    assert (report["task"], report["seeds"][0]["train_rows"]) == ("parity", 12)
    assert report["summary"]["test"] is None
    config = (finished.directory / "config.toml").read_text("utf-8")
    assert 'task = "memory:parity"' in config
    assert (finished.directory / "model" / "config.json").exists()


def test_a_whole_configuration_takes_the_object_too(task, tmp_path):
    config = aang_core.RunConfig.from_mapping({**SETTINGS, "method": "finetune"})
    report = aang_core.run(config, task=task, out=tmp_path / "run")
    assert (report.task, report.method) == ("parity", "finetune")


def test_what_would_need_the_object_again_is_refused_in_words(finished, task, tmp_path):
    with pytest.raises(TaskError, match="'memory:parity' was given in Python as an object"):
        aang_core.run(out=finished.directory, resume=True)
    with pytest.raises(ConfigError, match="cannot be resumed"):
        aang_core.run(task=task, out=finished.directory, resume=True, **SETTINGS)
    with pytest.raises(ConfigError, match="processes of their own, which cannot see the task"):
        aang_core.run(task=task, out=tmp_path / "run", seeds=[0, 1], jobs=2, **SETTINGS)
    assert not (tmp_path / "run").exists()


def test_a_malformed_object_names_every_fault(task, tmp_path):
    splits = {"train": _split("train", 4).remove_columns("text"), "dev": _split("dev", 0)}
    broken = attrs.evolve(task, splits=splits)
    with pytest.raises(TaskError) as caught:
        aang_core.run(task=broken, out=tmp_path / "run", **SETTINGS)
    assert "split 'dev': expected at least one row" in str(caught.value)
    assert "split 'train': expected the column 'text', found 'label'" in str(caught.value)
