"""The experiments of the paper, and ours, as files: every one is a list of valid configurations over legal spaces."""

from pathlib import Path

import pytest

from aang_core.errors import ConfigError
from aang_core.registry.legality import Legal, enumerate_objectives
from aang_core.registry.registry import load_registry
from aang_core.registry.spaces import resolve_space
from aang_core.study.sweeps.sweep_file import load_experiment

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "experiments"
PAPER = {"table2": 8, "table3": 2, "figure3": 3, "table5": 16, "table6": 9, "table7": 27}
OURS = {
    "digits": 4,
    "few-labels": 13,
    "few-labels-ablations": 9,
    "few-labels-oracle": 2,
    "few-labels-screening": 8,
    "few-labels-spaces": 10,
    "one-change": 8,
    "td-confirmation": 6,
    "td-screening": 5,
    "weighting-rules": 13,
}
RUNS = {**PAPER, **OURS}
"""Runs of each file: methods, times the sizes of the grid (2·2·2·2, 3·3, 3 methods · 3·3)."""


def file_of(name: str) -> Path:
    """The paper's lie in a folder of their own."""
    return FOLDER / ("paper" if name in PAPER else "") / f"{name}.toml"


def test_every_file_is_listed_here():
    assert {path.stem for path in FOLDER.rglob("*.toml")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_a_specification_gives_valid_runs_over_legal_spaces(name):
    registry = load_registry()
    if name == "digits" and "digits" not in registry.tasks:
        pytest.skip("needs aang-vision")
    found = load_experiment(file_of(name), task="sample").runs
    assert len(found) == RUNS[name]
    assert len({str(config) for config in found.values()}) == len(found), "two runs are the same"
    for config in found.values():
        verdicts = enumerate_objectives(resolve_space(config.space, registry), registry)
        assert any(isinstance(verdict, Legal) for verdict in verdicts)
        assert config.seeds == (0, 1, 2) or name in OURS


@pytest.mark.parametrize(
    ("screening", "study"),
    [("few-labels-screening", "few-labels"), ("td-screening", "td-confirmation")],
)
def test_a_study_has_other_seeds_than_its_screening(screening, study):
    chosen, confirmed = (
        {seed for config in load_experiment(file_of(name)).runs.values() for seed in config.seeds}
        for name in (screening, study)
    )
    assert not chosen & confirmed


def test_runs_lie_over_the_base_and_the_grid_over_both(tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text(
        '[base]\nspace = "td"\ntraining = { lr = 1e-3, max_steps = 9 }\n'
        '[[runs]]\nname = "a"\ntraining = { lr = 2e-3 }\n'
        '[grid]\n"training.lr" = [3e-3, 4e-3]\n',
        "utf-8",
    )
    found = load_experiment(spec, train_rows=50).runs
    assert list(found) == ["a, lr=0.003", "a, lr=0.004"]
    first = found["a, lr=0.003"]
    assert (first.training.lr, first.training.max_steps, first.train_rows) == (3e-3, 9, 50)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "extra = 1\n[grid]\nx = []\n",
            ["`extra` is no setting", "[[runs]]", "at least one value"],
        ),
        ('[[runs]]\nname = "a"\nspase = "td"\n', ["`spase` is no setting", "(a)"]),
        ('[[runs]]\nname = "a"\n[[runs]]\nname = "a"\n', ["two runs are named 'a'"]),
        ("[[runs]", ["not valid TOML"]),
    ],
)
def test_faults_are_named(tmp_path, text, messages):
    spec = tmp_path / "spec.toml"
    spec.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experiment(spec)
    for message in messages:
        assert message in str(caught.value)
