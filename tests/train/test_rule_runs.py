"""Whole runs under each weighting rule."""

import json

import pytest
from _rules import RECORDS, registry
from _tasks import settings, untimed, write_task

import aang_core as aang
from aang_core.analysis.history import read_history


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


class Stop(BaseException):
    """Ends a run as a killed process would: nothing tidies up."""


class Killer(aang.Callback):
    def on_step(self, session, record, progress):
        if progress.done == 5:
            raise Stop


def chosen(rule, control="none", **changed):
    """Six steps with three evaluations, and options with which every rule moves in them."""
    training = {"max_steps": 6, "final_epochs": 0}
    options = {"confident": {"start": 0.0, "looks": 2, "errors": 0.1}, "hindsight": {"steps": 2}}
    meta = {
        "rule": rule,
        "control": control,
        "update_every": 1,
        "dev_gradient_every": 1,
        "objectives_per_step": 2,
    }
    return settings(
        training=training, meta=meta, weightings=options, **{"space": "x+y+z", **changed}
    )


def contents(directory):
    report = json.loads((directory / "report.json").read_text("utf-8"))
    files = ("history.jsonl", "predictions.jsonl", "model/model.safetensors")
    return untimed(report), {name: (directory / name).read_bytes() for name in files}


@pytest.mark.parametrize(
    ("rule", "control"), [*((rule, "none") for rule in sorted(RECORDS)), ("confident", "shuffled")]
)
def test_a_resumed_run_of_each_rule_ends_bit_for_bit_the_same(rule, control, task, tmp_path):
    how = {"registry": registry(), **chosen(rule, control)}
    aang.run(task=str(task), out=tmp_path / "whole", **how)
    with pytest.raises(Stop):
        aang.run(task=str(task), out=tmp_path / "killed", callbacks=Killer(), **how)
    aang.run(out=tmp_path / "killed", resume=True, registry=registry())
    expected = contents(tmp_path / "whole")
    assert contents(tmp_path / "killed") == expected
    weights = expected[0]["weights"]["objectives"].values()
    assert (max(weights) > min(weights)) == (rule not in ("equal", "fork-merge"))
    history = read_history(tmp_path / "whole" / "history.jsonl")
    assert len(history) == (12 if rule == "fork-merge" else 6)
