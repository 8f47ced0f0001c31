"""`aang refit` and sweeps with both forms of a configuration: a search that is finished is not repeated."""

import json

import pytest
from _tasks import settings, untimed, write_task
from aang_cli.main import main
from click.testing import CliRunner

import aang_core as aang
from aang_core.errors import ConfigError, RunError
from aang_core.study.sweeps.sweep import planned, sweep
from aang_core.study.sweeps.sweep_file import load_experiment
from aang_core.study.trials.pool import StudyCallback
from aang_core.train.callbacks import Stopped

TRAINED = ("history.jsonl", "predictions.jsonl", "model/model.safetensors")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def chosen(method="aang", refit="none", **more):
    training = {"max_steps": 6, "final_epochs": 0, "lr": 3e-3, "refit": refit}
    return {**settings(method=method, training=training, meta={"update_every": 1}), **more}


@pytest.fixture(scope="module")
def made(task, tmp_path_factory):
    """The same run without a second training, and with it, two seeds each."""
    out = tmp_path_factory.mktemp("runs")
    aang.run(task=str(task), out=out / "once", **chosen(seeds=[0, 1]))
    aang.run(task=str(task), out=out / "twice", **chosen(refit="all", seeds=[0, 1]))
    return out


def contents(run, seeds=(0, 1)):
    report = json.loads((run / "report.json").read_text("utf-8"))
    files = [run / f"seed-{seed}" / name for seed in seeds for name in TRAINED]
    return untimed(report), (run / "config.toml").read_bytes(), [f.read_bytes() for f in files]


def invoke(*words):
    return CliRunner().invoke(main, list(map(str, words)))


class Steps(aang.Callback):
    """Counts steps. :param most: after which it stops."""

    def __init__(self, most=None):
        self.most, self.number = most, 0

    def on_step_end(self, session, record, progress):
        self.number += 1

    @property
    def stopping(self):
        return self.number == self.most


def test_a_refitted_run_is_what_the_run_with_refit_leaves(made, tmp_path):
    out = tmp_path / "new"
    result = invoke("refit", made / "once", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert contents(out) == contents(made / "twice")
    assert untimed(json.loads(result.stdout)) == contents(out)[0]
    history, source = (run / "seed-0" / "history.jsonl" for run in (out, made / "once"))
    assert not history.samefile(source)


def test_it_takes_the_steps_of_the_second_training_alone(made, tmp_path):
    steps = Steps()
    report = aang.run(search=made / "once", out=tmp_path / "new", callbacks=steps)
    assert steps.number == sum(seed.refit["steps"] for seed in report.seeds)


def test_an_interrupted_one_goes_on_to_the_same_bits(made, tmp_path):
    with pytest.raises(Stopped):
        aang.run(search=made / "once", out=tmp_path / "new", callbacks=Steps(most=2))
    result = invoke("refit", made / "once", "--out", tmp_path / "new", "--resume")
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "new") == contents(made / "twice")
    again = invoke("refit", made / "once", "--out", tmp_path / "new")
    assert again.exit_code == 1
    assert "go on with --resume" in again.stderr


def test_plain_fine_tuning_into_the_folder_beside_it(task, tmp_path):
    aang.run(task=str(task), out=tmp_path / "run", **chosen("finetune"))
    aang.run(task=str(task), out=tmp_path / "both", **chosen("finetune", "all"))
    shown = invoke("refit", tmp_path / "run")
    assert shown.exit_code == 0, shown.output
    assert "once more on train and dev" in shown.output
    left = [tmp_path / run / "model" / "model.safetensors" for run in ("run-refit", "both")]
    assert left[0].read_bytes() == left[1].read_bytes()


def test_what_cannot_be_trained_once_more_is_refused(task, made, tmp_path):
    twice = invoke("refit", made / "twice")
    assert twice.exit_code == 1
    assert "nothing is to be done" in twice.stderr
    assert not (made / "twice-refit").exists()
    assert "is no run directory" in invoke("refit", tmp_path / "absent").stderr
    aang.run(task=str(task), out=tmp_path / "guarded", guard=True, **chosen())
    guarded = invoke("refit", tmp_path / "guarded")
    assert "chose among several models" in guarded.stderr
    assert "--set training.refit=all" in guarded.stderr


def test_a_search_of_other_settings_is_refused_with_all_that_differs(task, made, tmp_path):
    other = chosen(refit="all", seeds=[0, 2])
    other["training"]["lr"] = 1e-3
    with pytest.raises(RunError) as caught:
        aang.run(task=str(task), out=tmp_path / "new", search=made / "once", **other)
    said = str(caught.value)
    assert "training.lr is 0.001 here and 0.003 there" in said
    assert "it has no seed 2" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "beside", [{"against": "finetune"}, {"against": "none", "control": "shuffled"}, {"jobs": 2}]
)
def test_it_goes_with_one_run_in_this_process(made, tmp_path, beside):
    with pytest.raises(ConfigError, match=r"jobs = 1 and without against"):
        aang.run(search=made / "once", out=tmp_path / "new", **beside)


SPEC = """
[base]
task = '{task}'
model = "scratch:tiny"
method = "finetune"
device = "cpu"
seeds = [0, 1]
[base.training]
max_steps = 4
eval_every = 2
end_task_rows = 4
final_epochs = 0
[[runs]]
name = "plain"
[[runs]]
name = "plain, all labels"
training = {{ refit = "all" }}
[[runs]]
name = "five steps, all labels"
training = {{ refit = "all", max_steps = 5 }}
"""


class Watching(StudyCallback):
    def __init__(self):
        self.steps = {}

    def on_progress(self, trial, done, total, best):
        if done is not None:
            self.steps.setdefault((trial.configuration, trial.seed), []).append(done)


def test_a_sweep_trains_what_two_configurations_share_once(task, tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(task=task), "utf-8")
    experiment, watching = load_experiment(path), Watching()
    plan = planned(experiment, tmp_path / "out")
    assert [trial.search is not None for trial in plan.trials] == [False, True, False] * 2
    found = sweep(experiment, tmp_path / "out", workers=1, callback=watching)
    assert {trial["state"] for trial in found["trials"]} == {"finished"}
    for seed in (0, 1):
        again = watching.steps["plain, all labels", seed]
        assert watching.steps["plain", seed] == [1, 2, 3, 4]
        assert again == list(range(1, len(again) + 1))
        assert len(watching.steps["five steps, all labels", seed]) > 5
    alone = aang.run(experiment.runs["plain, all labels"], out=tmp_path / "alone")
    shared = tmp_path / "out" / "runs" / "plain_all_labels"
    reports = [
        json.loads((run / "report.json").read_text("utf-8")) for run in (shared, alone.directory)
    ]
    assert untimed(reports[0]) == untimed(reports[1])
