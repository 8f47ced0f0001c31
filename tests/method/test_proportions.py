"""Further labelled tasks in a run: their sizes as weights, passes in place of steps, mixtures, regressions."""

import attrs
import pytest
import torch
from _tasks import settings, write_task

import aang_core as aang
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.method.weights.proportions import proportioned, sized_state
from aang_core.method.weights.weighting import Factors
from aang_core.testing import tiny_task


@attrs.frozen
class Sized:
    """As much of a bound objective as weights by size read."""

    source: range


def auxiliary(*sizes):
    task = tiny_task()
    return {
        f"task-{i}": attrs.evolve(task, splits={"train": task.splits["train"].select([0] * size)})
        for i, size in enumerate(sizes)
    }


def config(**training):
    return RunConfig.from_mapping({"method": "static", "training": training})


def test_every_example_of_every_task_counts_the_same():
    sizes, rows = (10, 40, 250), 100
    factors = Factors.of([f"aux:{i}/no-op/bidirectional/supervised" for i in range(3)])
    state = sized_state([Sized(range(size)) for size in sizes], rows, factors)
    everything = rows + sum(sizes)
    assert state.end_task_weight == pytest.approx(rows / everything, abs=1e-12)
    weights = (1 - state.end_task_weight) * state.weights(factors)
    expected = torch.tensor(sizes, dtype=torch.float64) / everything
    assert torch.allclose(weights, expected, atol=1e-12)


def test_passes_and_proportions_become_numbers():
    asked = config(epochs=3, auxiliary_rows="proportional", end_task_rows=16)
    found = proportioned(asked, 100, auxiliary(50, 150)).training
    assert found.max_steps == 3 * 7  # the last of 7 steps begins the next pass
    assert found.auxiliary_rows == 32
    few = proportioned(asked, 100, auxiliary(1, 1, 1)).training
    assert few.auxiliary_rows == 3  # one row of each task at least
    plain = config(max_steps=9)
    assert proportioned(plain, 100, auxiliary(5)) == plain


def test_rows_in_proportion_need_something_to_be_in_proportion_to():
    with pytest.raises(ConfigError, match="needs further tasks"):
        proportioned(config(auxiliary_rows=0), 10, {})
    alone = RunConfig.from_mapping({"method": "finetune", "training": {"auxiliary_rows": 0}})
    assert proportioned(alone, 10, {}).training.auxiliary_rows == 1


def test_size_and_a_recipe_exclude_each_other(tmp_path):
    task = write_task(tmp_path / "task")
    asked = settings(method="static", training={"task_weights": "size"})
    with pytest.raises(ConfigError, match="both say what to begin with"):
        aang.run(task=task, weights="anything.json", out=tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return {shape: write_task(folder / shape, shape) for shape in ("class", "pair", "regression")}


def test_a_regression_trains_with_classes_and_pairs_by_size(tasks, tmp_path):
    report = aang.run(
        task=tasks["regression"],
        aux_tasks=[str(tasks["class"]), str(tasks["pair"])],
        out=tmp_path / "run",
        **settings(
            space="supervised",
            method="static",
            training={"task_weights": "size", "epochs": 2, "auxiliary_rows": "proportional"},
        ),
    )
    [seed] = report.seeds
    assert {"pearson", "spearman", "mse"} <= set(seed.dev)
    assert report.metric == "pearson"
    assert report.weights["end_task"] == pytest.approx(1 / 3)
    assert len(report.weights["objectives"]) == 2
    assert seed.cost["rows"] == 2 * 3 * 24 + 24  # two passes over three tasks, one over the target


def test_supervised_objectives_mix_with_those_of_the_text(tasks, tmp_path):
    report = aang.run(
        task=tasks["class"],
        aux_tasks=[str(tasks["regression"])],
        with_=["aux", "supervised"],
        out=tmp_path / "run",
        **settings(space="td", method="aang", training={"max_steps": 2, "final_epochs": 0}),
    )
    ids = set(report.weights["objectives"])
    assert "aux:regression/no-op/bidirectional/supervised" in ids
    assert "task/bert-op/bidirectional/denoise" in ids
    assert not [i for i in ids if i.startswith("task/") and i.endswith("/supervised")]
