"""Sweeps carried out: kept and broken trials, failures, interruptions, Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import psutil
import pytest
from _tasks import untimed, write_task
from aang_cli.main import main
from click.testing import CliRunner

import aang_core as aang
from aang_core.errors import RunError
from aang_core.rundir.finished import read_run
from aang_core.study.sweeps.sweep import sweep
from aang_core.study.sweeps.sweep_file import load_experiment
from aang_core.study.trials.pool import StudyCallback

SPEC = """
[base]
task = '{task}'
model = "scratch:tiny"
method = "finetune"
device = "cpu"
[base.training]
max_steps = {steps}
patience = 1000000
eval_every = 2
end_task_rows = 4
final_epochs = 0
[[runs]]
name = "plain"
"""
ABSENT = """[[runs]]
name = "absent"
model = "absent/"
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def spec(folder, task, runs="", steps=4):
    path = folder / "spec.toml"
    path.write_text(SPEC.format(task=task, steps=steps) + runs, "utf-8")
    return path


def begun_processes():
    """The trials that this process has started and that are still there."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "aang_core.study.trials.trial" in child.cmdline()
    ]


class Killer(StudyCallback):
    """Kills a trial once, when its first checkpoint is written: at its third step."""

    def __init__(self):
        self.retried, self.steps, self.ended = [], [], []

    def on_progress(self, trial, done, total, best):
        if done is not None:
            self.steps.append(done)
        if done == 3 and not self.retried:
            (child,) = begun_processes()
            child.kill()

    def on_retry(self, trial, error):
        self.retried.append((trial.seed, error))

    def on_end(self, outcome):
        self.ended.append((outcome.trial.seed, outcome.attempts, outcome.error))


@pytest.fixture(scope="module")
def swept(task, tmp_path_factory, pages):
    """A sweep of two seeds, one after the other, the first of which was killed once; and who watched."""
    folder = tmp_path_factory.mktemp("sweeps")
    watcher = Killer()
    experiment = load_experiment(spec(folder, task), seeds=[0, 1])
    found = sweep(experiment, folder / "out", workers=1, callback=watcher)
    return folder / "out", found, watcher


def test_a_killed_trial_goes_on_from_its_checkpoint_and_ends_the_same(swept, task, tmp_path):
    out, _, watcher = swept
    ((seed, error),) = watcher.retried
    assert seed == 0
    assert "SIGKILL" in error
    assert watcher.ended == [(0, 2, ""), (1, 1, "")]
    assert watcher.steps.count(1) == 2, "only the other seed began twice"
    config = load_experiment(spec(tmp_path, task), seeds=[0]).runs["plain"]
    aang.run(config, out=tmp_path / "alone")
    place = out / "runs" / "plain" / "seed-0"
    for name in ("history.jsonl", "predictions.jsonl", "model/model.safetensors"):
        assert (place / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    reports = [
        json.loads((p / "report.json").read_text("utf-8")) for p in (place, tmp_path / "alone")
    ]
    assert untimed(reports[0]) == untimed(reports[1])


def test_a_configuration_is_a_run_directory_like_any_other(swept):
    out, found, _ = swept
    run = read_run(out / "runs" / "plain")
    assert run.seeds == (0, 1)
    assert (run.path / "report.html").is_file()
    (row,) = found["configurations"]
    assert row["values"] == {str(s): v for s, v in run.scores("dev", row["metric"]).items()}
    assert found == json.loads((out / "results.json").read_text("utf-8"))
    assert found["chosen"] == {row["task"]: "plain"}


def test_a_failing_trial_stops_no_other_and_finished_ones_are_kept(swept, task, tmp_path):
    out, *_ = swept
    model = out / "runs" / "plain" / "seed-0" / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    arguments = ["sweep", str(spec(tmp_path, task, ABSENT)), "--out", str(out), "--seed", "0"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "was begun with other settings" in refused.stderr, "one seed lies elsewhere than two"
    arguments += ["--seed", "1", "--retries", "0", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    states = {(t["configuration"], t["seed"]): t["state"] for t in found["trials"]}
    assert states == {
        ("plain", 0): "finished",
        ("absent", 0): "failed",
        ("plain", 1): "finished",
        ("absent", 1): "failed",
    }
    assert "absent/" in next(t["error"] for t in found["trials"] if t["state"] == "failed")
    assert "2 of 4 trials failed; the same command tries them again" in done.stderr
    assert "4 trials, 2 of them finished before" in done.stderr
    assert list(found["chosen"].values()) == ["plain"]
    assert model.stat().st_mtime_ns == before


def test_other_folders_and_other_settings_are_refused(swept, task, tmp_path):
    out, *_ = swept
    changed = load_experiment(spec(tmp_path, task, steps=6), seeds=[0, 1])
    with pytest.raises(RunError, match="2 faults") as caught:
        sweep(changed, out)
    assert "plain, seed 1" in str(caught.value)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("", "utf-8")
    with pytest.raises(RunError, match="is no sweep's directory"):
        sweep(changed, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def _waits(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def test_control_c_stops_the_trials_and_says_how_to_go_on(task, tmp_path):
    out = tmp_path / "out"
    path = spec(tmp_path, task, steps=1_000_000)
    command = ["-m", "aang_cli", "sweep", str(path), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    history = out / "runs" / "plain" / "history.jsonl"
    _waits(lambda: history.exists() and history.stat().st_size, process)
    trials = psutil.Process(process.pid).children()
    with pytest.raises(RunError, match="another process is at work on"):
        sweep(load_experiment(path), out)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert f"aang sweep {path} --out {out}" in errors
    assert "Traceback" not in errors
    assert not any(trial.is_running() for trial in trials)
    steps = len(history.read_text("utf-8").splitlines())
    newest = max((out / "runs" / "plain" / "checkpoint").glob("step-*"))
    assert newest.name == f"step-{steps:06d}", "the step under way ended, and was kept"


def test_a_trial_stops_when_its_sweep_is_killed(task, tmp_path):
    out = tmp_path / "out"
    path = spec(tmp_path, task, steps=1_000_000)
    command = ["-m", "aang_cli", "sweep", str(path), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    history = out / "runs" / "plain" / "history.jsonl"
    _waits(lambda: history.exists() and history.stat().st_size, process)
    (trial,) = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    psutil.wait_procs([trial], timeout=120)
    assert not trial.is_running()


@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray (the extra aang[sweep])")
def test_two_trials_with_ray(task, tmp_path):
    path = spec(tmp_path, task, ABSENT)
    out = tmp_path / "out"
    command = [
        "-m",
        "aang_cli",
        "sweep",
        str(path),
        "--out",
        str(out),
        "--retries",
        "1",
        "--json",
        "--ray",
    ]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    states = {t["configuration"]: t["state"] for t in found["trials"]}
    assert states == {"plain": "finished", "absent": "failed"}
    (error,) = [t["error"] for t in found["trials"] if t["state"] == "failed"]
    assert error.startswith("cannot load the configuration of model 'absent/'"), "without traceback"
    assert "tried again: absent, seed 0: cannot load the configuration" in done.stderr
    assert read_run(out / "runs" / "plain").seeds == (0,)
    assert list(found["chosen"].values()) == ["plain"]


def test_a_cluster_that_is_not_there(task, tmp_path):
    if find_spec("ray") is None:
        pytest.skip("needs ray (the extra aang[sweep])")
    arguments = ["sweep", str(spec(tmp_path, task)), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*arguments, "--ray", "127.0.0.1:1"])
    assert done.exit_code == 1, done.output
    assert "no Ray cluster can be used at '127.0.0.1:1'" in done.stderr
