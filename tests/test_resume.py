"""Interrupted runs: killed or stopped in the middle, they end as if nothing had happened."""

import json
import shlex
import signal
import subprocess
import sys
import time

import pytest
from _tasks import flags, settings, untimed, write_task

import aang_core as aang
from aang_core.errors import RunError


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def contents(directory):
    """What must be the same bit for bit."""
    report = json.loads((directory / "report.json").read_text("utf-8"))
    files = ("history.jsonl", "predictions.jsonl", "model/model.safetensors", "fitted.safetensors")
    kept = {name: (directory / name).read_bytes() for name in files if (directory / name).exists()}
    return untimed(report), kept


class Stop(BaseException):
    """Ends a run as a killed process would: nothing tidies up."""


class Killer(aang.Watcher):
    """Stops a run at a step, or at its n-th evaluation, before its checkpoint is written."""

    def __init__(self, *, step=0, evaluation=0):
        self.step, self.evaluation = step, evaluation

    def on_step(self, session, record, progress):
        if progress.done == self.step:
            raise Stop

    def on_evaluation(self, session, progress):
        if len(progress.evaluations) == self.evaluation:
            raise Stop


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    """Method → the settings of a run with every phase, and what it leaves when nobody stops it."""
    made = {}

    def of(method):
        if method not in made:
            # three evaluations in six steps, then an epoch whose learning rate lets it change the best
            training = {"max_steps": 6, "pretrain_steps": 2, "final_epochs": 1, "final_lr": 1e-2}
            meta = {"dev_gradient_every": 2, "dev_gradient_decay": 0.5, "update_every": 3}
            chosen = settings(training=training, meta=meta, method=method)
            out = tmp_path_factory.mktemp("whole") / method
            aang.run(task=str(task), out=out, **chosen)
            made[method] = chosen, contents(out)
        return made[method]

    return of


@pytest.mark.parametrize("method", ["aang", "static", "pretrain-finetune"])
@pytest.mark.parametrize("where", [{"step": 1}, {"step": 5}, {"evaluation": 2}, {"evaluation": 4}])
def test_a_run_stopped_anywhere_ends_the_same(method, where, task, whole, tmp_path):
    chosen, expected = whole(method)
    out = tmp_path / "run"
    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, watcher=Killer(**where), **chosen)
    assert not (out / "report.json").exists()
    aang.run(out=out, resume=True)
    assert contents(out) == expected


def test_a_finished_seed_is_not_trained_again(task, tmp_path):
    out = tmp_path / "run"

    class SecondSeed(aang.Watcher):
        def on_seed(self, session):
            if session.seed == 1:
                raise Stop

    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, seeds=[0, 1], watcher=SecondSeed(), **settings())
    model = out / "seed-0" / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    report = aang.run(out=out, resume=True)
    assert model.stat().st_mtime_ns == before
    assert [seed.seed for seed in report.seeds] == [0, 1]


def test_resuming_a_finished_run_gives_its_report(task, tmp_path):
    out = tmp_path / "run"
    report = aang.run(task=str(task), out=out, **settings(method="finetune"))
    again = aang.run(out=out, resume=True)
    assert again.as_mapping()["summary"] == report.as_mapping()["summary"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(task, whole, tmp_path):
    chosen, expected = whole("aang")
    out = tmp_path / "run"
    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, watcher=Killer(step=5), **chosen)
    newest = max((out / "checkpoint").glob("step-*"))
    (newest / "tensors.safetensors").write_bytes(b"torn")
    report = aang.run(out=out, resume=True)
    assert any("damaged" in remark for remark in report.seeds[0].remarks)
    assert contents(out)[1] == expected[1]


def test_other_settings_do_not_resume(task, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, watcher=Killer(step=3), **settings())
    with pytest.raises(RunError, match="other settings"):
        aang.run(task=str(task), out=out, resume=True, **settings(train_rows=12))
    with pytest.raises(RunError, match="no run to resume"):
        aang.run(task=str(task), out=tmp_path / "nothing", resume=True, **settings())


def _begun(task, out, max_steps):
    """A run in its own process that has written a checkpoint and goes on."""
    long = flags(max_steps=max_steps, eval_every=5, patience=100_000)
    command = [
        sys.executable,
        "-m",
        "aang_cli",
        "run",
        "--task",
        str(task),
        "--out",
        str(out),
        *long,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoint/step-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.05)
    return process


def test_control_c_says_how_to_go_on(task, tmp_path):
    out = tmp_path / "a run"
    process = _begun(task, out, max_steps=100_000)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"aang run --resume --out {shlex.quote(str(out))}" in errors
    assert "Traceback" not in errors


def test_a_killed_process_goes_on_from_its_checkpoint(task, tmp_path):
    """kill -9, then the command with --resume, beside a run that nobody stopped."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = _begun(task, broken, max_steps=20)
    process.kill()
    process.communicate()
    assert not (broken / "report.json").exists()
    command = [sys.executable, "-m", "aang_cli", "run", "--resume", "--out", str(broken), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    training = {"max_steps": 20, "eval_every": 5, "patience": 100_000}
    aang.run(task=str(task), out=whole, **settings(training=training))
    assert contents(broken) == contents(whole)
    assert json.loads(done.stdout) == json.loads((broken / "report.json").read_text("utf-8"))
