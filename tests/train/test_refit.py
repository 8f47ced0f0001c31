"""`training.refit`: once more on train and dev, with the length and the weights that the search found."""

import json
import math

import attrs
import pytest
from _rules import registry
from _tasks import settings, untimed, write_task
from aang_cli.closing import show

import aang_core as aang
from aang_core.analysis.page.page import build_story, page
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.method.weights.chosen import chosen_weighting
from aang_core.registry.registry import load_registry
from aang_core.rundir.finished import read_run
from aang_core.study.folds import cross_validate
from aang_core.train.callbacks import Stopped
from aang_core.train.finish.refit import (
    Found,
    ends_with_probe,
    length_of,
    longest_as_good,
    refit_run,
)
from aang_core.train.resolve import resolve


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def chosen(method="aang", refit="all", **training):
    training = {"max_steps": 6, "final_epochs": 0, "lr": 3e-3, "refit": refit, **training}
    return settings(method=method, training=training, meta={"update_every": 1})


@pytest.fixture(scope="module")
def made(task, tmp_path_factory):
    """The same run without and with it."""
    out = tmp_path_factory.mktemp("runs")
    once = aang.run(task=str(task), out=out / "once", **chosen(refit="none"))
    return out, once, aang.run(task=str(task), out=out / "twice", **chosen())


def by_hand(task, folder, steps, method, recipe="", **more):
    """Train and dev in one task, and a run on it that chooses nothing."""
    folder.mkdir()
    parts = {name: (task / f"{name}.jsonl").read_text("utf-8") for name in ("train", "dev", "test")}
    parts["train"] += parts["dev"]
    for name, text in parts.items():
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    given = {**chosen(method, "none", max_steps=steps, eval_every=steps), **more}
    if recipe:
        given["weights"] = str(recipe)
    return aang.run(task=str(folder), out=folder.with_name("run-by-hand"), **given)


def test_the_model_is_that_of_a_static_run_on_train_and_dev(task, made, tmp_path):
    out, once, twice = made
    (before,), (after,) = once.seeds, twice.seeds
    assert dict(after.dev) == dict(before.dev)
    assert after.weights == before.weights
    assert after.evaluations == before.evaluations
    recipe = out / "twice" / "refit" / "weights.json"
    assert json.loads(recipe.read_text("utf-8"))["objectives"] == before.weights["objectives"]
    hand = by_hand(task, tmp_path / "both", before.best_step, "static", recipe)
    left = (out / "twice" / "model" / "model.safetensors").read_bytes()
    assert left == (tmp_path / "run-by-hand" / "model" / "model.safetensors").read_bytes()
    assert left != (out / "once" / "model" / "model.safetensors").read_bytes()
    assert dict(after.test) == dict(hand.seeds[0].test)
    assert after.cost["tokens"] == before.cost["tokens"] + hand.seeds[0].cost["tokens"]
    assert (after.refit["steps"], after.refit["rows"]) == (before.best_step, 24 + 10)
    assert before.refit is None


def test_plain_fine_tuning_is_refitted_as_well(task, tmp_path):
    report = aang.run(task=str(task), out=tmp_path / "run", **chosen("finetune"))
    steps = report.seeds[0].refit["steps"]
    by_hand(task, tmp_path / "both", steps, "finetune")
    left = [tmp_path / run / "model" / "model.safetensors" for run in ("run", "run-by-hand")]
    assert left[0].read_bytes() == left[1].read_bytes()
    assert not (tmp_path / "run" / "refit" / "weights.json").exists()


def test_it_ends_with_a_probe_where_dev_has_kept_one(task, tmp_path):
    probe = {"heads": {"finish": "always"}}  # as if dev preferred it
    report = aang.run(task=str(task), out=tmp_path / "run", **chosen("finetune"), **probe)
    steps = report.seeds[0].refit["steps"]
    by_hand(task, tmp_path / "both", steps, "finetune", **probe)
    left = [tmp_path / run / "model" / "model.safetensors" for run in ("run", "run-by-hand")]
    assert left[0].read_bytes() == left[1].read_bytes()


def test_where_dev_prefers_the_first_probe_one_is_fitted_on_all_labels(task, tmp_path):
    spoilt = chosen("finetune", lr=1e30, head_lr=1e30)
    report = aang.run(task=str(task), out=tmp_path / "run", heads={"start": "probe"}, **spoilt)
    (seed,) = report.seeds
    assert (seed.best_step, seed.refit["steps"]) == (0, 0)
    assert "(34 rows, a probe on the encoder as it comes)" in seed.refit["said"]
    by_hand(task, tmp_path / "both", 1, "probe")
    left = [tmp_path / run / "model" / "model.safetensors" for run in ("run", "run-by-hand")]
    assert left[0].read_bytes() == left[1].read_bytes()


@pytest.mark.parametrize(
    ("finish", "scores", "kept"),
    [
        ("probe", [0.5, 0.7, 0.8], True),
        ("probe", [0.5, 0.8, 0.8], False),
        ("probe", [0.5, math.nan, 0.4], False),
        ("probe", [0.5, 0.6, math.nan], False),
        ("probe", [math.nan, 0.4], True),
        ("always", [0.5, 0.8, 0.7], True),
        ("none", [0.5, 0.8], False),
    ],
)
def test_whether_dev_has_kept_the_probe_follows_from_the_evaluations(finish, scores, kept):
    config = RunConfig.from_mapping({"heads": {"finish": finish}})
    assert ends_with_probe(config, "f1", [{"f1": score} for score in scores]) is kept


@pytest.mark.parametrize(
    ("scores", "error", "last"),
    [
        ([0.70, 0.74, 0.72, 0.71], 0.025, 60),
        ([0.70, 0.74, 0.72, 0.71], 0.05, 80),
        ([0.70, 0.74, 0.72, 0.71], 0.0, 40),
        ([0.74, 0.60, 0.60, 0.60], 0.05, 20),
        ([0.70, 0.74, math.nan, 0.72], 0.05, 80),
        ([math.nan, math.nan], 0.05, 0),
    ],
)
def test_the_length_is_the_longest_that_dev_cannot_tell_from_the_best(scores, error, last):
    evaluations = [{"step": 20 * (i + 1), "f1": score} for i, score in enumerate(scores)]
    assert longest_as_good("f1", evaluations, error) == last


def test_the_probe_at_the_end_counts_at_the_step_that_it_reads():
    evaluations = [{"step": step, "f1": 0.5 + step / 1000} for step in (20, 40, 60)]
    best = {"step": 60, "f1": 0.9}
    assert longest_as_good("f1", [*evaluations, best], 0.05) == 60


def test_the_second_training_is_longer_where_a_small_dev_chose_an_early_checkpoint(task, tmp_path):
    config = RunConfig.from_mapping({"task": str(task), **chosen("finetune", eval_every=1)})
    resolved = resolve(config, load_registry())
    scores = [0.60, 0.75, 0.70, 0.65, 0.50, 0.40]  # ten dev rows: a standard error of 0.16
    evaluations = tuple({"step": i + 1, resolved.task.metric: s} for i, s in enumerate(scores))
    found = Found(resolved=resolved, config=resolved.config, evaluations=evaluations, weights={})
    again = refit_run(found, 0, tmp_path)
    assert again.config.training.max_steps == 4


def test_report_closing_lines_page_and_card_say_what_dev_is_worth(made, capsys):
    out, _, report = made
    said = report.seeds[0].refit["said"]
    assert "the model has seen dev" in said
    assert said in report.seeds[0].remarks
    show(report)
    assert f"seed 0: {said}" in capsys.readouterr().out
    html, _ = page(build_story(read_run(out / "twice")))
    assert "before it was trained on dev too" in html
    cards = [(out / run / "model" / "README.md").read_text("utf-8") for run in ("once", "twice")]
    assert ["dev" in card.split("model-index")[-1].split("---")[0] for card in cards] == [
        True,
        False,
    ]


class StopInRefit(aang.Callback):
    steps = 0

    def on_step_end(self, session, record, progress):
        self.steps += 1

    @property
    def stopping(self):
        return self.steps == 7  # the search has six


def contents(directory):
    report = json.loads((directory / "report.json").read_text("utf-8"))
    files = ("history.jsonl", "predictions.jsonl", "model/model.safetensors")
    return untimed(report), {name: (directory / name).read_bytes() for name in files}


def test_a_run_that_is_interrupted_in_the_refit_goes_on_to_the_same_bits(task, made, tmp_path):
    with pytest.raises(Stopped):
        aang.run(task=str(task), out=tmp_path / "run", callbacks=StopInRefit(), **chosen())
    aang.run(out=tmp_path / "run", resume=True)
    found, expected = contents(tmp_path / "run"), contents(made[0] / "twice")
    assert found == expected


def test_a_guarded_run_refits_what_it_keeps(task, tmp_path):
    report = aang.run(task=str(task), out=tmp_path / "run", guard=True, **chosen())
    (seed,) = report.seeds
    learns = (tmp_path / "run" / "refit" / "weights.json").exists()
    assert learns == (seed.guard["kept"] == "aang")
    assert seed.refit["rows"] == 34


def test_the_length_is_the_median_of_the_best_steps():
    config = RunConfig.from_mapping({"training": {"max_steps": 50}})
    assert length_of(config, [10, 40, 20, 30]) == 30
    assert length_of(config, [70]) == 50  # the rest is the final fine-tuning's
    assert length_of(config, [0]) == 0
    two = attrs.evolve(config, method="pretrain-finetune")
    assert length_of(two, [two.training.pretrain_steps + 7]) == 7


def test_a_probe_at_the_start_is_no_choice_where_dev_chooses_nothing(task, tmp_path):
    given = chosen("finetune", "none", max_steps=3, eval_every=3)
    report = aang.run(task=str(task), out=tmp_path / "run", heads={"start": "probe"}, **given)
    assert [e["step"] for e in report.seeds[0].evaluations] == [3]


def test_a_rule_that_merges_on_dev_cannot_be_trained_on_dev(tmp_path):
    raw = {"meta": {"rule": "fork-merge"}, "training": {"refit": "all"}}
    with pytest.raises(ConfigError, match=r"merges as dev prefers.*training.refit"):
        chosen_weighting(RunConfig.from_mapping(raw), registry())
    config = RunConfig.from_mapping({"model": "scratch:tiny", "meta": raw["meta"]})
    with pytest.raises(ConfigError, match=r"--no-final"):
        cross_validate(config, 2, tmp_path / "folds", registry())
