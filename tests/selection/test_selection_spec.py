"""An experiment's file with all its faults, and the subsets of tasks that it is carried out on."""

import re
from pathlib import Path

import pytest
from _tasks import write_task

from aang_core.data.task import load_task
from aang_core.errors import ConfigError
from aang_core.study.selected.experiment import drawn_rows
from aang_core.study.selected.experiment import write_task as write_drawn
from aang_core.study.selected.experiment_spec import read_spec


def test_every_fault_of_a_specification_is_said_at_once(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(
        'targets = "one"\ntops = [1]\ncontrols = ["nothing"]\n[rows]\ntrain = -1\n'
        '[run]\ntask = "x"\n[select]\nselector = "random"\n',
        "utf-8",
    )
    with pytest.raises(ConfigError) as fault:
        read_spec(path)
    message = str(fault.value)
    assert "7 faults" in message
    for said in (
        "spec.toml:1: `targets` must be a list of at least one task",
        "spec.toml:2: `tops` is no setting; did you mean 'top'?",
        "spec.toml:3: `controls[0]` must be one of",
        "spec.toml:5: `rows.train` must be a whole number",
        "spec.toml:7: `run.task` is what an experiment varies",
        "spec.toml:9: `select.selector` is what an experiment varies",
        "spec.toml: `pools` is missing; it must be a list of at least one task",
    ):
        assert said in message


def test_a_table_that_is_none_is_said_once(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text('targets = ["a"]\npools = ["b"]\nrows = 1\nrun = 2\nselect = 3\n', "utf-8")
    with pytest.raises(ConfigError, match="3 faults"):
        read_spec(path)


def read(folder):
    return load_task(str(folder), reads=("text", "text_pair"), registered={}, external={})


@pytest.mark.parametrize("shape", ["class", "pair", "regression", "unlabelled"])
def test_drawn_tasks_are_the_task_with_fewer_rows(tmp_path, shape):
    task = read(write_task(tmp_path / "whole", shape))
    rows = {split: drawn_rows(task, split, 6, seed=3) for split in task.splits}
    write_drawn(task, rows, tmp_path / "drawn")
    drawn = read(tmp_path / "drawn")
    assert (drawn.kind, drawn.metric, drawn.label_names) == (
        task.kind,
        task.metric,
        task.label_names,
    )
    for split, numbers in rows.items():
        assert len(numbers) == 6
        assert drawn.splits[split].to_dict() == task.splits[split].select(numbers).to_dict()
    assert rows["train"] == drawn_rows(task, "train", 6, seed=3)
    assert rows["train"] != drawn_rows(task, "train", 6, seed=4)
    assert drawn_rows(task, "dev", 0, seed=3, excluded=frozenset({2, 4})) == [
        0,
        1,
        3,
        *range(5, 10),
    ]


def test_the_study_and_the_one_in_the_documents_are_whole(tmp_path):
    ours = read_spec(root_of("benchmarks/selection.toml"))
    assert (len(ours.seeds), len(ours.targets), len(ours.arms)) == (5, 2, 5)
    page = root_of("docs/selection.md").read_text("utf-8")
    [block] = re.findall(r"```toml\n(title.*?)```", page, re.DOTALL)
    path = tmp_path / "spec.toml"
    path.write_text(block, "utf-8")
    assert read_spec(path).select["options"] == {"discriminator-bce": {"epochs": 3}}


def root_of(name):
    return Path(__file__).resolve().parents[2] / name
