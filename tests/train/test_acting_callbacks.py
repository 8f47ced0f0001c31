"""Callbacks that plugins bring: they hear each training, may end it, and go on from a checkpoint with their state.

The plugin is the one of the documents, ``docs/examples/aang-plateau``.
"""

import json
import os
import shutil
import sys

import pytest
import torch
from _plugins import write_distribution

import aang_core as aang
from aang_core.errors import ConfigError, PluginError, RunError
from aang_core.rundir.report import read_report
from aang_core.train.callbacks import Callback, Callbacks, Stopped

SETTINGS = {
    "model": "scratch:tiny",
    "space": "tapt",
    "device": "cpu",
    "training": {
        "max_steps": 12,
        "eval_every": 4,
        "final_epochs": 2,
        "max_length": 16,
        "end_task_rows": 4,
        "auxiliary_rows": 8,
        "lr": 1e-9,
        "head_lr": 1e-9,
    },
}
OPTIONS = {"callback_options": {"plateau": {"window": 2, "least": 0.9}}}
PLATEAU = {"callbacks": ["plateau"], **OPTIONS}
"""With this window and share the loss has stopped falling after four steps, whatever it does."""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    for split, rows in (("train", 20), ("dev", 8), ("test", 8)):
        lines = [
            {"text": f"{split} text {i} of {i % 2}", "label": "ab"[i % 2]} for i in range(rows)
        ]
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps(x) + "\n" for x in lines), "utf-8"
        )
    return str(folder)


@pytest.fixture
def plugin(root, tmp_path, monkeypatch):
    """The documents' plugin as an installer would lay it down, also for the processes of seeds."""
    site = tmp_path / "site"
    write_distribution(site, "aang-plateau", "0.1.0", {"plateau": "aang_plateau.hooks"})
    shutil.copytree(root / "docs/examples/aang-plateau/aang_plateau", site / "aang_plateau")
    monkeypatch.syspath_prepend(str(site))
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), before])))
    yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "aang_plateau"]:
        del sys.modules[name]


def test_a_plugin_ends_the_training_and_the_best_is_kept(plugin, task, tmp_path, capsys):
    out = tmp_path / "run"
    report = aang.run(task=task, out=out, **SETTINGS, **PLATEAU)
    seed = report.seeds[0]
    assert seed.steps == 4  # and no final fine-tuning follows
    assert [each["step"] for each in seed.evaluations] == [4]
    assert "the joint training was ended after step 4 by Plateau" in seed.remarks
    assert seed.test is not None
    assert (out / "model" / "config.json").exists()
    assert read_report(out)["plugins"]["plateau"] == "aang-plateau 0.1.0"
    assert "plateau: 4 steps, dev [" in capsys.readouterr().out
    assert 'callbacks = [\n    "plateau",\n]' in (out / "config.toml").read_text("utf-8")


def test_an_end_between_two_evaluations_is_evaluated(plugin, task, tmp_path):
    changed = {"callback_options": {"plateau": {"window": 3, "least": 0.9}}}
    report = aang.run(task=task, out=tmp_path / "run", **SETTINGS, **{**PLATEAU, **changed})
    assert [each["step"] for each in report.seeds[0].evaluations] == [4, 6]


def test_seeds_in_other_processes_load_it_too(plugin, task, tmp_path):
    kept = {**SETTINGS, **PLATEAU, "seeds": [0, 1]}
    one = aang.run(task=task, out=tmp_path / "one", **kept)
    two = aang.run(task=task, out=tmp_path / "two", jobs=2, **kept)
    assert [seed.steps for seed in two.seeds] == [4, 4]
    assert [seed.dev for seed in one.seeds] == [seed.dev for seed in two.seeds]


class Interrupting(Callback):
    """Interrupts after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0

    @property
    def stopping(self) -> bool:
        return self.done >= self.steps

    def on_step_end(self, session, record, progress) -> None:
        self.done = progress.done


@pytest.mark.parametrize("steps", [2, 4])
def test_its_state_comes_back_from_the_checkpoint(plugin, task, tmp_path, steps):
    whole = aang.run(task=task, out=tmp_path / "whole", **SETTINGS, **PLATEAU)
    out = tmp_path / "broken"
    with pytest.raises(Stopped):
        aang.run(
            task=task,
            out=out,
            callbacks=[Interrupting(steps), "plateau"],
            **{**SETTINGS, **OPTIONS},
        )
    (state,) = (out / "checkpoint").glob("step-*/state.json")
    scores = json.loads(state.read_text("utf-8"))["facts"]["callbacks"]["Plateau"]["scores"]
    assert len(scores) == (steps == 4)
    resumed = aang.run(out=out, resume=True)
    assert resumed.seeds[0].steps == 4  # without its state it would have counted anew
    assert resumed.seeds[0].dev == whole.seeds[0].dev
    assert resumed.seeds[0].evaluations == whole.seeds[0].evaluations


class Counting(Callback):
    """Hears by the new names, and ends whatever is under way after some steps of it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @property
    def should_training_stop(self) -> bool:
        return self.heard.count("step") >= 2

    def on_train_begin(self, session) -> None:
        self.heard.append("begin")

    def on_step_end(self, session, record, progress) -> None:
        self.heard.append("step")

    def on_evaluate(self, session, progress) -> None:
        self.heard.append("evaluate")

    def on_train_end(self, session, progress) -> None:
        self.heard.append("end")


def test_a_given_callback_ends_every_phase(task, tmp_path):
    callback = Counting()
    training = {**SETTINGS["training"], "pretrain_steps": 5}
    settings = {**SETTINGS, "method": "pretrain-finetune", "training": training}
    aang.run(task=task, out=tmp_path / "run", callbacks=callback, **settings)
    assert callback.heard == ["begin", "step", "step", "step", "evaluate", "end"]


def test_what_cannot_work_with_jobs_is_refused(task, tmp_path):
    said = "Counting overrides on_train_begin and on_train_end and should_training_stop"
    with pytest.raises(ConfigError, match=said):
        aang.run(
            task=task, out=tmp_path / "run", seeds=[0, 1], jobs=2, callbacks=Counting(), **SETTINGS
        )


def test_names_and_options_are_checked_before_anything_is_written(plugin, task, tmp_path):
    with pytest.raises(ConfigError, match="unknown callback 'plateaux'; did you mean 'plateau'"):
        aang.run(task=task, out=tmp_path / "run", callbacks="plateaux", **SETTINGS)
    wrong = {**PLATEAU, "callback_options": {"plateau": {"windows": 3}}}
    with pytest.raises(ConfigError, match=r"callback_options\.plateau.*windows"):
        aang.run(task=task, out=tmp_path / "run", **SETTINGS, **wrong)
    assert not (tmp_path / "run").exists()


class Forgetful(Callback):
    def state_dict(self):
        return {"when": {1, 2}}


def test_a_state_that_json_would_change_is_refused_by_name(task, tmp_path):
    with pytest.raises(RunError, match="the state of the callback Forgetful, 'when'"):
        aang.run(task=task, out=tmp_path / "run", callbacks=Forgetful(), **SETTINGS)


def test_a_factory_that_fails_is_named(plugin, task, tmp_path):
    (plugin / "aang_plateau" / "stopping.py").write_text(
        "def Plateau(options):\n    return 3\n", "utf-8"
    )
    with pytest.raises(PluginError, match=r"'plateau' \(aang-plateau 0.1.0\) returned 3"):
        aang.run(task=task, out=tmp_path / "run", **SETTINGS, **PLATEAU)


def test_several_of_one_class_keep_apart():
    class Kept(Callback):
        def __init__(self, value):
            self.value = value

        def state_dict(self):
            return {"value": torch.tensor(self.value)}

        def load_state_dict(self, state):
            self.value = int(state["value"])

    both = Callbacks([Callbacks([Kept(1)]), Kept(2), Callback()])
    states = both.state_dict()
    other = Callbacks([Kept(0), Kept(0)])
    other.load_state_dict(states)
    assert [member.value for member in other.members] == [1, 2]
