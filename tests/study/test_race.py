"""Races: who trains how long, what dev keeps, and that an interruption changes nothing."""

import json
import math

import attrs
import pytest
from _tasks import settings, untimed, write_task

import aang_core as aang
from aang_core.analysis.page.page import page as report_page
from aang_core.analysis.page.page import told
from aang_core.check.dry_run import summarise
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.registry.records import STAGES
from aang_core.registry.registry import load_registry
from aang_core.registry.spaces import suggestions
from aang_core.rundir.finished import read_run
from aang_core.rundir.report import mean_weights
from aang_core.study.folds import cross_validate
from aang_core.train.callbacks import Callback, Stopped
from aang_core.train.finish.race import Tried, best_of, entrants, qualified, rounds
from aang_core.train.resolve import resolve

RACE = """
name = "mine"
summary = "Three candidates"
[candidates.plain]
method = "finetune"
[candidates.pairs]
space = "setfit"
heads = { finish = "none" }
[candidates.probe]
method = "probe"
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("spaces") / "race.toml"
    path.write_text(RACE, "utf-8")
    return str(path)


def run(task, space, out, **more):
    made = settings(training={"max_steps": 6, "eval_every": 2, "lr": 3e-3, "final_epochs": 0})
    return aang.run(task=str(task), out=out, **{**made, "space": space, **more})


@pytest.fixture(scope="module")
def finished(task, space, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "race"
    return run(task, space, out)


def tried(name, score, steps=10):
    dev = {"accuracy": score}
    cost = {"tokens": 5}
    return Tried(
        name=name,
        steps=steps,
        best_step=1,
        score=score,
        dev=dev,
        cost=cost,
        seconds=0,
        cpu_seconds=0,
    )


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("steps", [7, 200])
@pytest.mark.parametrize(("refit", "finalists"), [(False, 2), (True, 1)])
def test_a_race_costs_at_most_three_trainings(count, steps, refit, finalists):
    plan = rounds(count, steps, refit)
    assert plan[0][0] == count
    assert plan[-1] == (min(count, finalists), steps)
    most = 3 * steps + sum(size for size, _ in plan)  # where steps do not divide, one more each
    assert sum(size * short for size, short in plan) + refit * steps <= most
    assert all(short <= steps for _, short in plan)


def test_four_candidates_qualify_with_a_quarter_each():
    assert rounds(4, 200) == [(4, 50), (2, 200)]
    assert rounds(8, 200) == [(8, 12), (4, 25), (2, 200)]
    assert rounds(8, 200, refit=True) == [(8, 12), (4, 25), (1, 200)]


def test_a_tie_goes_to_the_earlier_one_and_what_is_not_finite_loses():
    field = [tried("a", 0.5), tried("b", -math.inf), tried("c", 0.7), tried("d", 0.5)]
    assert best_of(field).name == "c"
    assert qualified(field, 2) == ["a", "c"]
    assert best_of([field[0], field[3]]).name == "a"


def test_the_best_on_dev_is_kept_and_everything_is_told(finished, task, space):
    (seed,) = finished.seeds
    race = seed.race
    trainings = [(each["name"], each["steps"]) for each in race["tried"]]
    assert trainings[:3] == [("plain", 2), ("pairs", 2), ("probe", 0)]
    full = [name for name, steps in trainings[3:]]
    assert all(steps == 6 for _, steps in trainings[3:])
    assert "probe" not in full, "a probe has nothing to train in full"
    best = max(race["tried"], key=lambda each: each["score"])
    assert (race["kept"], race["steps"]) == (best["name"], best["steps"])
    assert dict(seed.dev) == best["dev"]
    assert seed.cost["tokens"] == sum(each["cost"]["tokens"] for each in race["tried"])
    assert race["said"] in seed.remarks
    report = json.loads((finished.directory / "report.json").read_text("utf-8"))
    assert report["seeds"][0]["race"] == json.loads(json.dumps(race))
    assert report["space"] == "mine"
    assert not list(finished.directory.rglob("checkpoint")), "nothing is left of those that lost"
    page, _ = report_page(*told(read_run(finished.directory)))
    assert "The race" in page
    assert f"{race['kept']} (kept)" in page


def test_the_kept_model_is_that_of_the_candidate_alone(finished, task, tmp_path):
    (seed,) = finished.seeds
    kept, steps = seed.race["kept"], seed.race["steps"]
    if kept == "pairs":
        how = {"space": "setfit", "heads": {"finish": "none"}}
    else:
        how = {"method": {"plain": "finetune"}.get(kept, kept)}
    training = {"max_steps": max(steps, 1), "eval_every": 2, "lr": 3e-3, "final_epochs": 0}
    made = {**settings(training={**training, "refit": "none"}), **how}
    alone = aang.run(task=str(task), out=tmp_path / "alone", **made)
    assert dict(alone.seeds[0].test) == dict(seed.test)
    left = (finished.directory / "model" / "model.safetensors").read_bytes()
    assert left == (tmp_path / "alone" / "model" / "model.safetensors").read_bytes()


class _StopsAt(Callback):
    """Interrupts once so many steps of all trainings are done."""

    def __init__(self, steps):
        self.left = steps

    @property
    def stopping(self):
        return self.left <= 0

    def on_step_end(self, session, record, progress):
        self.left -= 1


@pytest.mark.parametrize("steps", [1, 3, 5, 9, 15])
def test_an_interrupted_race_ends_the_same(steps, finished, task, space, tmp_path):
    out = tmp_path / "race"
    with pytest.raises(Stopped):
        run(task, space, out, callbacks=_StopsAt(steps))
    again = aang.run(out=out, resume=True)
    ours, theirs = (
        untimed(json.loads(json.dumps(each.as_mapping()))) for each in (again, finished)
    )
    assert ours == theirs
    left = (out / "model" / "model.safetensors").read_bytes()
    assert left == (finished.directory / "model" / "model.safetensors").read_bytes()


def test_a_dry_run_counts_every_training(task, space):
    made = {**settings(training={"max_steps": 6, "final_epochs": 0}), "space": space}
    config = RunConfig.from_mapping({"task": str(task), **made})
    plan = summarise(config, load_registry())
    assert plan.steps == 2 + 2 + 0 + 6 + 6
    assert plan.method == "race of plain, pairs, probe"
    again = attrs.evolve(config, training=attrs.evolve(config.training, refit="all"))
    plan = summarise(again, load_registry())
    assert plan.steps == 2 + 2 + 0 + 6 + 6, "the best in full, and once more on train and dev"


def test_folds_train_the_final_model_with_the_candidate_that_most_kept(task, space, tmp_path):
    made = {**settings(training={"max_steps": 4, "final_epochs": 0}), "space": space}
    config = RunConfig.from_mapping({"task": str(task), **made})
    found = cross_validate(config, 2, tmp_path / "folds", load_registry())
    report = json.loads((tmp_path / "folds" / "final" / "report.json").read_text("utf-8"))
    assert report["seeds"][0]["race"] is None
    assert report["method"] in ("finetune", "static", "probe")
    assert found["final"]["steps"] >= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[candidates.a]\nmethod = 'static'\n", "candidate a needs a `space`"),
        ("[candidates.a]\nspace = 'td'\nseeds = [1]\n", "candidate a sets 'seeds'"),
        ("[candidates.a]\nspace = 'auto'\n", "which is a race itself"),
        ("[candidates.a]\nspace = 'td'\ntraining = { lrr = 1 }\n", "lrr"),
        (
            "[candidates.a]\nspace = 'td'\ntraining = { refit = 'all' }\n",
            "belongs to the whole race",
        ),
        ("[candidates.a]\nspace = 'nowhere'\n", "nowhere"),
        ("name = 'empty'\n", "found neither"),
    ],
)
def test_bad_candidates_are_named_before_anything_trains(text, said, task, tmp_path):
    path = tmp_path / "race.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=said):
        run(task, str(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_the_run_sets_goes_before_what_a_candidates_space_suggests(task):
    made = {"task": str(task), "space": "auto", "training": {"auxiliary_rows": 8, "lr": 3e-5}}
    registry = load_registry()
    config = RunConfig.from_mapping(made, suggest=suggestions(registry))
    known = entrants(resolve(config, registry))
    rows = {
        (e.config.training.end_task_rows, e.config.training.auxiliary_rows) for e in known.values()
    }
    assert rows == {(16, 8)}, "the space suggests 16, the run says 8"
    assert {each.config.training.lr for each in known.values()} == {3e-5}
    assert {each.config.heads.start for each in known.values()} == {"tempered-probe"}
    assert known["setfit"].config.method == "static"


def test_a_candidate_that_the_task_does_not_suit_is_left_out_and_named(tmp_path):
    heard = []

    class Hears(Callback):
        def on_remark(self, remark):
            heard.append(remark)

    numbers = write_task(tmp_path / "numbers", "regression")
    path = tmp_path / "race.toml"
    path.write_text(RACE, "utf-8")
    report = run(numbers, str(path), tmp_path / "run", callbacks=Hears())
    assert {each["name"] for each in report.seeds[0].race["tried"]} == {"plain"}
    assert any("candidate pairs does not suit this task: " in text for text in heard)
    assert any("candidate probe does not suit this task: a probe needs" in text for text in heard)


def test_a_race_and_a_guard_exclude_each_other(task, space, tmp_path):
    with pytest.raises(ConfigError, match="`guard` would choose once more"):
        run(task, space, tmp_path / "run", guard=True)


def test_the_registered_race_is_of_spaces_that_exist():
    registry = load_registry()
    record = registry.spaces["auto"].record
    assert record.candidates
    named = {each["space"] for each in record.candidates.values() if "space" in each}
    assert named <= registry.spaces.keys()


def test_a_race_may_end_with_a_training_on_all_labels(task, space, tmp_path):
    training = {"max_steps": 4, "eval_every": 2, "final_epochs": 0, "refit": "all"}
    made = settings(training=training)
    report = aang.run(task=str(task), out=tmp_path / "run", **{**made, "space": space})
    (seed,) = report.seeds
    assert seed.refit["rows"] == 34, "24 of train and 10 of dev"
    assert seed.race["kept"]
    full = [each for each in seed.race["tried"] if each["steps"] == 4]
    assert len(full) <= 1, "the training on all labels takes the second finalist's place"
    tried = sum(each["cost"]["tokens"] for each in seed.race["tried"])
    assert seed.cost["tokens"] > tried, "the last training is counted"


def test_seeds_that_kept_candidates_with_other_objectives_have_mean_weights(finished):
    (seed,) = finished.seeds
    stages = {stage: {f"a {stage}": 1.0} for stage in STAGES}
    tables = [
        {"objectives": {"pairs": 1.0}, "stages": stages, "end_task": 0.5},
        {
            "objectives": {"pairs": 0.25, "agree": 0.75},
            "stages": {stage: {f"another {stage}": 1.0} for stage in STAGES},
            "end_task": 0.3,
        },
        {},  # plain fine-tuning has none
    ]
    found = mean_weights([attrs.evolve(seed, weights=table) for table in tables])
    assert found["objectives"] == {"pairs": 0.625, "agree": 0.375}
    assert found["stages"]["output"] == {"a output": 0.5, "another output": 0.5}
    assert found["end_task"] == pytest.approx(0.4)


def test_a_probe_that_wins_is_fitted_once_more_on_all_labels(task, tmp_path):
    path = tmp_path / "race.toml"
    path.write_text("name = 'one'\nsummary = 's'\n[candidates.probe]\nmethod = 'probe'\n", "utf-8")
    training = {"max_steps": 4, "final_epochs": 0, "refit": "all"}
    report = aang.run(
        task=str(task), out=tmp_path / "run", **{**settings(training=training), "space": str(path)}
    )
    (seed,) = report.seeds
    assert (seed.race["kept"], seed.refit["rows"]) == ("probe", 34)
