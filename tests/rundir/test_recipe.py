"""Recipes: out of a run, into a state, with the very same weights; refusals by their message."""

import json

import pytest
import torch
from _runs import IDS, write_run
from hypothesis import given
from hypothesis import strategies as st

from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.method.weights.weighting import Factors
from aang_core.rundir.finished import read_run
from aang_core.rundir.recipe import (
    Recipe,
    check_recipe,
    export_recipe,
    initial_state,
    read_recipe,
    starting_state,
)

FACTORS = Factors.of(IDS)


@given(st.lists(st.floats(1e-6, 1.0), min_size=4, max_size=4), st.floats(0.01, 0.99))
def test_the_state_has_the_weights_of_the_recipe(weights, end_task):
    total = sum(weights)
    recipe = Recipe(
        objectives={id_: w / total for id_, w in zip(IDS, weights, strict=True)},
        end_task=end_task,
        where="here",
    )
    state = initial_state(recipe, FACTORS)
    expected = torch.tensor(weights, dtype=torch.float64) / total
    torch.testing.assert_close(state.weights(FACTORS), expected, rtol=1e-12, atol=1e-12)
    assert state.end_task_weight == pytest.approx(end_task, rel=1e-12)


def test_what_a_stage_has_in_common_goes_to_its_primitives():
    weights = {id_: 0.4 if "/bidirectional/" in id_ else 0.1 for id_ in IDS}
    state = initial_state(Recipe(objectives=weights, end_task=0.5, where="here"), FACTORS)
    shares = state.stage_weights(FACTORS)["representation"]
    assert shares["bidirectional"] > shares["left-to-right"]
    assert shares["left-to-right"] == pytest.approx(shares["random-factorized"])


def test_a_run_exports_and_reads_back_and_can_be_read_itself(tmp_path):
    run = read_run(write_run(tmp_path / "run", {0: 20, 1: 21}))
    file = tmp_path / "weights.json"
    export_recipe(run, file)
    assert json.loads(file.read_text())["from"]["space"] == "td"
    for where in (file, run.path, run.path / "report.json"):
        recipe = read_recipe(where)
        assert recipe.objectives == pytest.approx(dict(zip(IDS, (0.4, 0.1, 0.3, 0.2), strict=True)))
        assert recipe.end_task == pytest.approx(0.7)


def test_objectives_that_the_run_lacks_are_left_out_and_unknown_ones_are_refused(tmp_path):
    path = write_run(tmp_path / "run", {0: 20})
    fewer = starting_state(str(path), Factors.of(IDS[:2]))
    assert fewer.weights(Factors.of(IDS[:2])).tolist() == pytest.approx([0.8, 0.2])
    with pytest.raises(ConfigError, match="no weight for 1 of 5 objectives: other/mask/"):
        starting_state(str(path), Factors.of([*IDS, "other/mask/bidirectional/denoise"]))


def test_without_a_recipe_all_weigh_the_same():
    assert starting_state("", FACTORS).weights(FACTORS).tolist() == [0.25] * 4


def test_plain_fine_tuning_has_no_weights_to_export_or_to_take(tmp_path):
    run = read_run(write_run(tmp_path / "plain", {0: 20}, method="finetune"))
    with pytest.raises(ConfigError, match="no auxiliary objectives, so no weights"):
        export_recipe(run, tmp_path / "weights.json")
    config = RunConfig.from_mapping({"method": "finetune", "weights": str(tmp_path)})
    with pytest.raises(ConfigError, match="no auxiliary objectives to weigh"):
        check_recipe(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "it must be a table"),
        ('{"schema": 1, "objectives": {}, "end_task": 0.5}', "at least one weight of an objective"),
        ('{"schema": 2, "objectives": {"a": 1}, "end_task": 0.5}', "the schema is 2"),
        ('{"schema": 1, "objectives": {"a": -1, "b": "x"}, "end_task": 2}', "3 faults"),
        ('{"schema": 1, "objectives": {"a": 0}, "end_task": 0.5}', "every weight is 0"),
    ],
)
def test_a_damaged_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "weights.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        read_recipe(path)


def test_a_missing_recipe_is_named_before_training(tmp_path):
    config = RunConfig.from_mapping({"weights": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere"):
        check_recipe(config)
