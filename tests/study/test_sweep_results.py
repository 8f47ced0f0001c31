"""What a sweep found: the choice by dev for each task, and what is shown of test."""

from __future__ import annotations

import json

import pytest
from _runs import write_run
from test_sweep_spec import SPEC, spec

from aang_core.errors import RunError
from aang_core.study.results import sweep_page, sweep_results
from aang_core.study.sweeps.sweep import planned
from aang_core.study.sweeps.sweep_file import load_experiment


def finished(plan, right):
    """Write a report for some trials: name → how many of 40 answers are right on dev and test."""
    for trial in plan.trials:
        if trial.name in right:
            write_run(trial.directory, {trial.seed: right[trial.name][1]}, method="finetune")
            path = trial.directory / "report.json"
            report = json.loads(path.read_text("utf-8"))
            report["seeds"][0]["dev"]["accuracy"] = right[trial.name][0] / 40
            path.write_text(json.dumps(report), "utf-8")


def test_the_choice_is_by_the_mean_on_dev_alone(tmp_path):
    plan = planned(load_experiment(spec(tmp_path, SPEC)), tmp_path / "out")
    first, second = plan.configurations
    finished(
        plan,
        {
            f"{first}, seed 0": (20, 39),  # better on test, and with the best single dev score
            f"{first}, seed 1": (32, 39),
            f"{second}, seed 0": (27, 10),
            f"{second}, seed 1": (28, 12),
        },
    )
    found = sweep_results(plan, {}, threads=1)
    assert found["chosen"] == {"sample": second}
    rows = {row["configuration"]: row for row in found["configurations"]}
    assert rows[first]["dev"]["mean"] == pytest.approx(0.65)
    assert rows[second]["dev"]["mean"] == pytest.approx(0.6875)
    assert rows[second]["values"] == {"0": 27 / 40, "1": 28 / 40}
    assert rows[second]["test"]["mean"] == pytest.approx(0.275)
    assert rows[first]["test"] is None, "who sees all test scores chooses by test"
    assert rows[first]["settings"] == {"training.lr": 1e-3}
    page = sweep_page(found)
    assert page.index(second + " |") < page.index(first + " |"), "the best on dev comes first"
    assert "0.9750" not in page


def test_what_is_not_finished_is_not_chosen_and_failures_are_listed(tmp_path):
    plan = planned(load_experiment(spec(tmp_path, SPEC)), tmp_path / "out")
    first, second = plan.configurations
    finished(
        plan,
        {
            f"{first}, seed 0": (40, 40),
            f"{second}, seed 0": (10, 10),
            f"{second}, seed 1": (10, 10),
        },
    )
    found = sweep_results(plan, {f"{first}, seed 1": "no more\n<memory>"}, threads=1)
    assert found["chosen"] == {"sample": second}
    states = {f"{t['configuration']}, seed {t['seed']}": t["state"] for t in found["trials"]}
    assert states[f"{first}, seed 1"] == "failed"
    assert states[f"{second}, seed 1"] == "finished"
    assert f"- {first}, seed 1: no more &lt;memory&gt;" in sweep_page(found)
    assert "# A | search" in sweep_page(found)


def test_each_task_has_its_own_choice(tmp_path):
    plan = planned(load_experiment(spec(tmp_path, SPEC), tasks=["a", "b"]), tmp_path / "out")
    scores = dict(zip(plan.configurations, (10, 20, 30, 5), strict=True))
    finished(plan, {trial.name: (scores[trial.configuration], 1) for trial in plan.trials})
    found = sweep_results(plan, {}, threads=1)
    names = list(plan.configurations)
    assert found["chosen"] == {"a": names[1], "b": names[2]}


def test_a_damaged_report_is_named(tmp_path):
    plan = planned(load_experiment(spec(tmp_path, SPEC)), tmp_path / "out")
    finished(plan, {plan.trials[0].name: (1, 1)})
    (plan.trials[0].directory / "report.json").write_text("{", "utf-8")
    with pytest.raises(RunError, match="damaged"):
        sweep_results(plan, {}, threads=1)
