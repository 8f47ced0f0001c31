"""Specifications of sweeps: random search, faults with their lines, places on disk, workers and threads."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aang_core.errors import ConfigError
from aang_core.study.sweeps.sweep import check_configurations, planned
from aang_core.study.sweeps.sweep_file import Draw, RandomSearch, load_experiment
from aang_core.study.trials.pool import cores, machine_for

SPEC = """title = "A | search"
[base]
task = "sample"
seeds = [0, 1]
method = "finetune"
[[runs]]
name = "plain"
[grid]
training.lr = [1e-3, 1e-4]
"""


def spec(tmp_path, text):
    path = tmp_path / "spec.toml"
    path.write_text(text, "utf-8")
    return path


# --- random search


def draws():
    return [
        Draw(key="training.lr", kind="log-uniform", values=(1e-5, 1e-2)),
        Draw(key="training.warmup", kind="uniform", values=(0.0, 0.5)),
        Draw(key="training.auxiliary_rows", kind="int", values=(3, 5)),
        Draw(key="method", kind="choice", values=("aang", "static")),
    ]


@given(seed=st.integers(0, 10_000), trials=st.integers(1, 12))
def test_points_lie_in_their_ranges_and_differ(seed, trials):
    points = RandomSearch(trials=trials, seed=seed, draws=tuple(draws())).points()
    assert len(points) == trials
    assert len({json.dumps(point) for point in points}) == trials
    for point in points:
        assert 1e-5 <= point["training.lr"] <= 1e-2
        assert 0.0 <= point["training.warmup"] <= 0.5
        assert point["training.auxiliary_rows"] in (3, 4, 5)
        assert point["method"] in ("aang", "static")
        assert float(f"{point['training.lr']:.4g}") == point["training.lr"]


def test_the_same_seed_draws_the_same_and_more_trials_keep_the_first():
    few = RandomSearch(trials=5, seed=3, draws=tuple(draws())).points()
    many = RandomSearch(trials=20, seed=3, draws=tuple(draws())).points()
    assert many[:5] == few
    assert RandomSearch(trials=5, seed=4, draws=tuple(draws())).points() != few


def test_a_further_setting_does_not_move_the_others():
    one, *rest = draws()
    alone = RandomSearch(trials=6, seed=0, draws=(one,)).points()
    together = RandomSearch(trials=6, seed=0, draws=(one, *rest)).points()
    assert [p[one.key] for p in alone] == [p[one.key] for p in together]


def test_log_uniform_spreads_over_the_decades():
    search = RandomSearch(trials=3000, seed=1, draws=(draws()[0],))
    decades = Counter(math.floor(math.log10(point["training.lr"])) for point in search.points())
    assert all(abs(decades[decade] - 1000) < 120 for decade in (-5, -4, -3))


def test_ints_reach_both_ends():
    search = RandomSearch(trials=3, seed=0, draws=(draws()[2],))
    assert sorted(p["training.auxiliary_rows"] for p in search.points()) == [3, 4, 5]


# --- specifications


def test_grid_and_random_points_are_the_same_for_every_run(tmp_path):
    text = SPEC + (
        '[[runs]]\nname = "static"\nmethod = "static"\n'
        "[random]\ntrials = 3\nmeta.factor_lr = { uniform = [0.0, 1.0] }\n"
    )
    found = load_experiment(spec(tmp_path, text)).runs
    assert len(found) == 2 * 2 * 3
    points = {}
    for name, config in found.items():
        key = config.training.lr, config.meta.factor_lr
        points.setdefault(name.partition(",")[0], set()).add(key)
    assert points["plain"] == points["static"]
    assert len(points["plain"]) == 6


def test_flags_lie_over_the_file_and_tasks_become_an_axis(tmp_path):
    path = spec(tmp_path, SPEC)
    flags = {"training.max_steps": (7, "--set"), "seeds": ([5], "--seed")}
    found = load_experiment(path, tasks=["a/", "b/"], flags=flags).runs
    assert [config.task for config in found.values()] == ["a/", "a/", "b/", "b/"]
    assert {config.seeds for config in found.values()} == {(5,)}
    assert {config.training.max_steps for config in found.values()} == {7}
    one = load_experiment(path, tasks=["a/"]).runs
    assert list(one) == ["plain, lr=0.001", "plain, lr=0.0001"]
    assert {config.task for config in one.values()} == {"a/"}


def test_one_task_replaces_those_of_the_grid(tmp_path):
    path = spec(tmp_path, SPEC + 'task = ["a/", "b/"]\n')
    assert len(load_experiment(path).runs) == 4
    found = load_experiment(path, tasks=["c/"]).runs
    assert list(found) == ["plain, lr=0.001", "plain, lr=0.0001"]
    assert {config.task for config in found.values()} == {"c/"}


FAULTY = """titel = "x"
[base]
spase = "td"
training.lr = -1
[[runs]]
name = "a"
[[runs]]
name = "b"
training = { max_steps = 0 }
[grid]
meta.factor_lr = [0.1, -2]
"""


def test_every_fault_is_named_with_its_line_and_once(tmp_path):
    text = FAULTY.replace('titel = "x"\n', "\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment(spec(tmp_path, text))
    path = tmp_path / "spec.toml"
    lines = str(caught.value).split("\n")
    assert lines[0] == f"{path}: 4 faults"
    for found in (
        f"{path}:3: `spase` is no setting",
        f"{path}:4: `training.lr` must be a number above 0",
        f"{path}:9 (b): `training.max_steps` must be a whole number of at least 1 (got 0)",
        f"{path}:11: `meta.factor_lr` must be a number of at least 0 (got -2",
    ):
        assert sum(found in line for line in lines) == 1, str(caught.value)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ('titel = "x"\n' + SPEC, [":1: `titel` is no setting; did you mean 'title'?"]),
        (SPEC + "seeds = [0, 1]\n", [":10: `grid.seeds` cannot vary"]),
        (
            SPEC + "[random]\nseed = -1\ntraining.clip = { normal = [0, 1] }\n",
            [
                "`random.trials` is missing; it must be a whole number from 1 to 10000",
                ":11: `random.seed` must be a whole number of at least 0 (got -1)",
                ":12: `random.training.clip.normal` is no setting",
            ],
        ),
        (
            SPEC + "[random]\ntrials = 2\ntraining.lr = { uniform = [2, 1] }\n",
            [":12: `random.training.lr.uniform` must be two numbers, the smaller first"],
        ),
        (
            SPEC + "[random]\ntrials = 2\ntraining.lr = { log-uniform = [0.1, 1] }\n",
            [":12: `random.training.lr` stands in [grid] as well"],
        ),
        (
            SPEC + "[random]\ntrials = 9\nmeta.balance = { choice = [true, false] }\n",
            [":11: `random.trials` asks for 9 different points, but only 2 could be drawn"],
        ),
        (SPEC + "[random]\ntrials = 2\n", ["`random` must draw at least one setting"]),
        (SPEC + "[random]\ntrials = 2\nmeta.balance = 3\n", ["must be a table of one way to draw"]),
        (
            SPEC + "[random]\ntrials = 2\nmeta.balance = { choice = [] }\n",
            ["a list of at least one value"],
        ),
        (
            SPEC + "[random]\ntrials = 2\ntraining.clip = { int = [1.5, 2] }\n",
            ["two whole numbers"],
        ),
        (SPEC.replace('"plain"', '"a\\u0007"'), ["`runs[0].name` must be a printable text"]),
        (
            SPEC + f"training.warmup = {[n / 6000 for n in range(6000)]}\n",
            ["`grid` and `random` make 12000 configurations, more than 10000"],
        ),
        ("random = 3\n" + SPEC, ["`random` must be a table"]),
    ],
)
def test_faults_of_searches(tmp_path, text, messages):
    with pytest.raises(ConfigError) as caught:
        load_experiment(spec(tmp_path, text))
    for message in messages:
        assert message in str(caught.value)


def test_two_names_for_one_configuration_are_refused(tmp_path):
    text = SPEC.replace("[grid]\ntraining.lr = [1e-3, 1e-4]\n", '[[runs]]\nname = "again"\n')
    with pytest.raises(ConfigError, match="'again' and 'plain' are the same configuration"):
        planned(load_experiment(spec(tmp_path, text)), tmp_path)


def test_what_cannot_run_is_found_before_anything_does(tmp_path):
    text = SPEC + '[[runs]]\nname = "static"\nmethod = "static"\nspace = "tdd"\n'
    found = load_experiment(spec(tmp_path, text), task=str(tmp_path / "nowhere")).runs
    with pytest.raises(ConfigError) as caught:
        check_configurations(found)
    assert "nowhere" in str(caught.value)
    assert "'td'" in str(caught.value)
    assert "plain, lr=0.001: " in str(caught.value)


# --- plans


def test_trials_take_the_seeds_in_turn_and_lie_in_folders_of_their_own(tmp_path):
    plan = planned(load_experiment(spec(tmp_path, SPEC)), tmp_path / "out")
    assert [trial.name for trial in plan.trials] == [
        "plain, lr=0.001, seed 0",
        "plain, lr=0.0001, seed 0",
        "plain, lr=0.001, seed 1",
        "plain, lr=0.0001, seed 1",
    ]
    assert [trial.config.seeds for trial in plan.trials] == [(0,), (0,), (1,), (1,)]
    folder = tmp_path / "out" / "runs" / "plain_lr=0.001"
    assert plan.trials[2].directory == folder / "seed-1"
    assert len({trial.log for trial in plan.trials}) == 4


def test_names_never_leave_the_sweeps_directory_or_meet(tmp_path):
    names = ["../../etc", "a/b", "a b", "A_B", "..", "é", "x" * 300, "<b>"]
    runs = "".join(
        f"[[runs]]\nname = {json.dumps(name)}\ntrain_rows = {row}\n"
        for row, name in enumerate(names, 10)
    )
    plan = planned(
        load_experiment(spec(tmp_path, '[base]\nmethod = "finetune"\n' + runs)), tmp_path
    )
    places = list(plan.places.values())
    assert {place.parent for place in places} == {tmp_path / "runs"}
    assert len({place.name.lower() for place in places}) == len(names)
    assert all(len(place.name) < 120 and place.name.isascii() for place in places)
    assert not any(place.name.startswith(".") for place in places)


@pytest.mark.parametrize("workers", [None, 1, 2, 3, 64])
@pytest.mark.parametrize("trials", [1, 5])
@pytest.mark.parametrize("devices", [(), ("0", "1")])
def test_workers_and_threads_fit_the_cores(monkeypatch, workers, trials, devices):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machine = machine_for(trials, workers, devices)
    assert 1 <= machine.workers <= min(trials, workers or trials)
    assert machine.threads >= 1
    assert machine.workers * machine.threads <= cores()
