"""Primitives of strangers that misbehave: named, with their distribution, and nothing is harmed."""

import json

import pytest
import torch
from _faulty import registry_with
from _tasks import settings, write_task
from safetensors.torch import load_file

import aang_core as aang
from aang_core.errors import PluginError
from aang_core.method.gradient.row_gradients import values
from aang_core.train.step import DEV_GRADIENT

FAULTS = {
    "raising": "failed in apply for .*: ZeroDivisionError: by nothing \\(_faulty.py:",
    "raising-later": "failed in apply for .*: KeyError: 'later' \\(_faulty.py:",
    "unmade": "failed in its factory: RuntimeError: no licence \\(_faulty.py:",
    "mutating": "changes its input in apply \\(.*input_ids.*\\); expected a new object",
    "shorter": "broke its contract in apply for .*: expected [0-9]+ positions in selected, found",
    "no-record": "broke its contract in apply for .*: expected rows.Packed, found dict",
    "torch-dice": "uses the global random state of torch in apply",
    "numpy-dice": "uses the global random state of numpy in apply",
    "python-dice": "uses the global random state of python in apply",
    "whimsical": "gives two answers in apply for the same rows and generator \\(.selected",
    "narrow": "broke its contract in its rule for .*: expected torch.bool \\[(\\d+), \\1\\]",
    "untagged": "broke its contract in its rule for .*: expected a tag of .*found 'sideways'",
    "outside": "broke its contract in targets for .*: expected indices of positions from 0 to",
    "uneven": "broke its contract in targets for .*: expected [0-9]+ targets in 'value', found",
    "scalar": "broke its contract in losses.*: expected [0-9]+ losses, one a target, found",
    "headless": "failed in head: FileNotFoundError: head.bin",
    "overwriting": "changes its input in losses \\(.*states",
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return str(write_task(tmp_path_factory.mktemp("tasks") / "boxes"))


def run_with(name, task, out, **changed):
    """A short run whose space, the single objective of TAPT, has a faulty primitive added."""
    meta = {"objectives_per_step": 0}
    chosen = settings(space="tapt", with_=[name], meta=meta, **changed)
    return aang.run(task=task, out=out, registry=registry_with(name), **chosen)


@pytest.mark.parametrize("name", FAULTS)
def test_the_primitive_is_named_with_its_distribution(name, task, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(PluginError, match=FAULTS[name]) as error:
        run_with(name, task, out)
    assert f"{name!r} of plugin 'loud' (aang-loud 1.2)" in str(error.value)
    # what shows before the first step leaves nothing; what shows later leaves a run to look at
    assert out.exists() is (name == "raising-later")


@pytest.mark.parametrize("name", ["not-a-number", "infinite"])
def test_a_loss_that_is_no_number_names_its_objective_and_poisons_nothing(name, task, tmp_path):
    out = tmp_path / "run"
    report = run_with(name, task, out, training={"max_steps": 4, "final_epochs": 0})
    (seed,) = report.seeds
    bad = f"task/bert-op/bidirectional/{name}"
    assert f"step 2 was skipped: not finite in {bad}" in seed.remarks
    assert seed.cost["skipped_steps"] >= 2
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text("utf-8").splitlines()]
    assert all(line["skipped"] == [bad] for line in lines if line["losses"].get(bad, 0) is None)
    for file in ("model/model.safetensors", "checkpoint/best.safetensors"):
        for tensor in load_file(out / file).values():
            assert bool(tensor.isfinite().all())
    weights = report.weights
    assert all(0 < weight < 1 for weight in weights["objectives"].values())
    assert 0 < weights["end_task"] < 1


def test_a_dev_gradient_that_is_no_number_is_named_and_made_anew(task, tmp_path):
    """A dev head whose learning rate overflows once."""

    class Spoiler(aang.Callback):
        seen = ()

        def on_step(self, session, record, progress):
            self.seen += (record.skipped,)
            if progress.done == 1:
                gradient = next(iter(session.dev_gradient.values()))
                values(gradient).fill_(torch.nan)

    watcher = Spoiler()
    meta = {"dev_gradient_every": 100, "dev_gradient_decay": 0.5}
    report = aang.run(
        task=task, out=tmp_path / "run", callbacks=watcher, **settings(meta=meta, space="tapt")
    )
    assert watcher.seen[:4] == ((), (DEV_GRADIENT,), (), ())
    assert report.seeds[0].cost["skipped_steps"] == 1
    assert 0 < report.weights["end_task"] < 1


def test_a_learning_rate_that_overflows_never_becomes_the_best_model(task, tmp_path):
    """The first evaluation is of sound weights, every later one of weights that overflowed."""
    out = tmp_path / "run"

    class Wild(aang.Callback):
        def on_evaluation(self, session, progress):
            for group in session.optimizer.param_groups:
                group["base_lr"] = 1e30

    training = {"max_steps": 6, "eval_every": 2, "final_epochs": 0}
    report = aang.run(task=task, out=out, callbacks=Wild(), **settings(training=training))
    (seed,) = report.seeds
    assert seed.best_step == 2
    for tensor in load_file(out / "model" / "model.safetensors").values():
        assert bool(tensor.isfinite().all())
