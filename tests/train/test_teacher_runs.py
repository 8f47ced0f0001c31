"""Whole runs with a teacher: stopped anywhere they end the same, dev may keep the running mean, a stranger may ask."""

import json

import pytest
import torch
from _pages import ROOT, blocks
from _plugins import importable, write_distribution
from _tasks import settings, untimed, write_task
from aang_text.data.pseudo import PseudoLabelled
from safetensors.torch import load_file

import aang_core as aang
from aang_core.errors import PluginError

AGREE = {"agree": {"ramp": [0.0, 0.5], "gate": "soft"}}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def chosen(**changed):
    training = {"mean_evaluation": "best", "max_steps": 6, **changed.pop("training", {})}
    given = {"space": "uda", "method": "aang", "train_rows": 8, "primitives": AGREE, **changed}
    return settings(training=training, **given)


def left(directory):
    report = json.loads((directory / "report.json").read_text("utf-8"))
    return untimed(report), (directory / "model" / "model.safetensors").read_bytes()


class Stop(BaseException):
    """Ends a run as a killed process would."""


class Killer(aang.Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, session, record, progress):
        if progress.done == self.step:
            raise Stop


@pytest.mark.parametrize("step", [3, 5])
def test_a_run_with_a_teacher_stopped_anywhere_ends_the_same(step, task, tmp_path):
    aang.run(task=str(task), out=tmp_path / "whole", **chosen())
    with pytest.raises(Stop):
        aang.run(task=str(task), out=tmp_path / "run", callbacks=Killer(step), **chosen())
    aang.run(out=tmp_path / "run", resume=True)
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_the_teachers_passes_are_counted_and_the_mean_may_be_what_is_left(task, tmp_path):
    only = chosen(training={"mean_evaluation": "only", "final_epochs": 0, "mean_decay": 0.99})
    report = aang.run(task=str(task), out=tmp_path / "mean", **only)
    off = chosen(training={"mean_evaluation": "off", "final_epochs": 0, "mean_decay": 0.99})
    other = aang.run(task=str(task), out=tmp_path / "own", **off)
    one, two = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("mean", "own")
    )
    assert any(not torch.equal(one[name], two[name]) for name in one)
    lines = (tmp_path / "own" / "history.jsonl").read_text("utf-8").splitlines()
    tokens = [json.loads(line)["tokens"] for line in lines]
    assert other.seeds[0].cost["tokens"] == sum(tokens) == report.seeds[0].cost["tokens"]
    plain = chosen(space="x+y+z", training={"mean_evaluation": "off", "final_epochs": 0})
    without = aang.run(task=str(task), out=tmp_path / "plain", **plain)
    assert other.seeds[0].cost["tokens"] > without.seeds[0].cost["tokens"]


def test_an_objective_that_begins_late_is_unknown_until_then_and_keeps_its_share(task, tmp_path):
    late = {"agree": {"ramp": [0.5, 1.0]}}
    meta = {"rule": "exponentiated", "factor_lr": 2.0}
    run = chosen(space="few-labels", primitives=late, meta=meta, training={"final_epochs": 0})
    aang.run(task=str(task), out=tmp_path / "run", **run)
    steps = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").open()]
    (agree,) = [name for name in steps[0]["weights"] if name.endswith("/agree")]
    known = [agree in step["alignments"] for step in steps]
    assert known == [False] * 4 + [True] * 2  # of six steps the ramp begins with the fourth, at 0
    assert [step["weights"][agree] for step in steps[:4]] == [0.5] * 4
    assert all(len(step["alignments"]) == 2 for step in steps[:4])  # the end-task and the pairs


def test_the_strangers_output_works_in_less_than_forty_lines(task, tmp_path, monkeypatch):
    (code,) = [b.body for b in blocks(ROOT / "docs" / "teachers.md") if b.language == "python"]
    assert len([line for line in code.splitlines() if line.strip()]) < 40
    assert "._" not in code
    site = tmp_path / "site"
    write_distribution(site, "aang-sure", "1.0", {"sure": "aang_sure"}, aang_sure=code)
    importable(site, monkeypatch)
    space = tmp_path / "sure.toml"
    space.write_text(
        '[[block]]\ndata = ["unlabelled"]\ntransform = ["mask", "delete"]\n'
        'representation = ["bidirectional"]\noutput = ["sure"]\n',
        encoding="utf-8",
    )
    run = chosen(space=str(space), primitives={})
    report = aang.run(task=str(task), out=tmp_path / "run", **run)
    assert report.plugins["sure"] == "aang-sure 1.0"
    assert set(report.weights["objectives"]) == {
        "unlabelled/mask/bidirectional/sure",
        "unlabelled/delete/bidirectional/sure",
    }


SPACE = """[[block]]
data = ["pseudo-labelled"]
transform = ["no-op", "mask"]
representation = ["bidirectional"]
output = ["end-task", "same-class"]
"""
PSEUDO = {"neighbours": 0, "confidence": 0.0, "refresh": 2}


def losses(run):
    lines = (run / "history.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["losses"] for line in lines]


def labels_of(checkpoint):
    return load_file(checkpoint / "tensors.safetensors")["source.pseudo-labelled.labels"]


@pytest.mark.parametrize("step", [2, 3, 5])
def test_labels_that_the_model_refreshes_are_the_same_after_an_interruption(step, task, tmp_path):
    space = tmp_path / "pseudo.toml"
    space.write_text(SPACE, encoding="utf-8")
    given = chosen(
        space=str(space),
        primitives={"pseudo-labelled": PSEUDO},
        training={"mean_evaluation": "off", "eval_every": 1, "lr": 0.05, "mean_decay": 0.2},
    )
    report = aang.run(task=str(task), out=tmp_path / "whole", **given)
    said = [remark for remark in report.seeds[0].remarks if "the model labels" in remark]
    assert [text.partition(":")[0] for text in said] == ["after step 2", "after step 4"]
    lines = (tmp_path / "whole" / "history.jsonl").read_text("utf-8").splitlines()
    tokens = sum(json.loads(line)["tokens"] for line in lines)
    assert report.seeds[0].cost["tokens"] > tokens, "looking is counted"
    with pytest.raises(Stop):
        aang.run(task=str(task), out=tmp_path / "run", callbacks=Killer(step), **given)
    folder = tmp_path / "run" / "checkpoint"
    saved = [labels_of(place) for place in sorted(folder.glob("step-*"))]
    assert saved
    assert all(len(labels) == 16 for labels in saved)
    aang.run(out=tmp_path / "run", resume=True)
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    if step == 5:
        never = {**given, "primitives": {"pseudo-labelled": {**PSEUDO, "refresh": 0}}}
        aang.run(task=str(task), out=tmp_path / "never", **never)
        others, own = losses(tmp_path / "never"), losses(tmp_path / "whole")
        assert others[:3] == own[:3], (
            "the third step's rows are drawn before the model is looked at"
        )
        assert others[3] != own[3]


def test_a_source_that_forgets_what_it_remembers_is_named(task, tmp_path, monkeypatch):
    space = tmp_path / "pseudo.toml"
    space.write_text(SPACE, encoding="utf-8")
    monkeypatch.setattr(PseudoLabelled, "refreshed", lambda self, look: ({}, ""))
    given = chosen(space=str(space), primitives={"pseudo-labelled": PSEUDO})
    with pytest.raises(PluginError, match=r"pseudo-labelled.*expected the memory"):
        aang.run(task=str(task), out=tmp_path / "run", **given)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_teachers_precision_is_a_setting_that_leaves_training_alone(
    precision, task, tmp_path, monkeypatch
):
    monkeypatch.setattr("aang_core.method.precision.bf16_units", lambda _: True)
    seen = []

    class Watch(aang.Callback):
        def on_train_begin(self, session):
            seen.append((session.slow.precision, session.engine.precision))

    given = chosen(training={"teacher_precision": precision, "max_steps": 2})
    aang.run(task=str(task), out=tmp_path / "run", callbacks=Watch(), **given)
    assert seen == [(precision, "fp32")]
    auto = chosen(training={"max_steps": 2})
    report = aang.run(task=str(task), out=tmp_path / "auto", callbacks=Watch(), **auto)
    assert seen[-1] == ("bf16", "fp32")
    assert any("teacher_precision: bf16" in remark for remark in report.seeds[0].remarks)
