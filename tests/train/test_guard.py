"""The guard against harm: both trainings happen, dev decides, and what is left is the model that dev chose."""

import json

import pytest
from _tasks import settings, untimed, write_task

import aang_core as aang


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def guarded(task, out, **changed):
    return aang.run(task=str(task), out=out, guard=True, **settings(**changed))


def plain(task, out, **changed):
    made = settings(**changed)
    made["training"]["row_budget"] = "end-task"
    return aang.run(task=str(task), method="finetune", out=out, **made)


@pytest.mark.parametrize("factor", [1e-9, 1.0])
def test_the_kept_model_is_the_better_one_on_dev(factor, task, tmp_path):
    """A search whose learning rate is almost 0 learns nothing; the plain run shares it, so the two are compared."""
    training = {"max_steps": 20, "lr": 1e-2 * factor, "head_lr": 1e-2}
    report = guarded(task, tmp_path / "run", training=training)
    alone = aang.run(task=str(task), out=tmp_path / "search", **settings(training=training))
    rival = plain(task, tmp_path / "plain", training=training)
    (seed,) = report.seeds
    ours, theirs = alone.seeds[0], rival.seeds[0]
    metric = report.metric
    assert seed.guard["dev"] == {"aang": ours.dev[metric], "finetune": theirs.dev[metric]}
    hurt = theirs.dev[metric] > ours.dev[metric]
    assert seed.guard["kept"] == ("finetune" if hurt else "aang")
    best = theirs if hurt else ours
    assert (dict(seed.dev), dict(seed.test)) == (dict(best.dev), dict(best.test))
    left = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    source = tmp_path / ("plain" if hurt else "search")
    assert left == (source / "model" / "model.safetensors").read_bytes()
    assert seed.cost["tokens"] == ours.cost["tokens"] + theirs.cost["tokens"]
    assert seed.guard["said"] in seed.remarks


def test_harm_is_seen_and_said(task, tmp_path):
    """An end-task weight that is driven to 0 leaves the search with nothing; the plain model is kept."""
    meta = {"end_task_lr": 1e6, "factor_lr": 0.0, "update_every": 1}
    made = settings(
        training={"max_steps": 40, "eval_every": 40, "lr": 3e-3, "head_lr": 1e-2}, meta=meta
    )
    report = aang.run(task=str(task), out=tmp_path / "run", guard=True, **made)
    (seed,) = report.seeds
    if seed.guard["dev"]["finetune"] > seed.guard["dev"]["aang"]:
        assert "the auxiliary objectives hurt" in seed.guard["said"]
        assert "plainly fine-tuned model is kept" in seed.guard["said"]
    else:
        assert "does not say" in seed.guard["said"]


def test_resuming_takes_the_finished_seed(task, tmp_path):
    first = guarded(task, tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    again = aang.run(out=tmp_path / "run", resume=True)
    assert untimed(json.loads(json.dumps(again.as_mapping()))) == untimed(
        json.loads(json.dumps(first.as_mapping()))
    )
