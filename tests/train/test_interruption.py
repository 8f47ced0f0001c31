"""Ctrl-C, SIGTERM, a full disk and exhausted memory: the run says what is kept and how to go on."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from _children import commands, contents, ended, started, steps_done, trains, wait_for_steps
from _faulty import registry_with
from _tasks import flags, settings, write_task
from aang_cli.progress import Interruption

import aang_core as aang
from aang_core.errors import RunError
from aang_core.rundir.failures import explained
from aang_core.train.callbacks import Stopped

LONG = {"max_steps": 12, "eval_every": 5, "final_epochs": 1}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return str(write_task(tmp_path_factory.mktemp("tasks") / "boxes"))


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    """What a run leaves that nobody stops."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert ended(started(trains, str(out), task, settings(training=LONG, space="tapt"))) == 0
    return contents(out)


def command(task, out, **changed):
    return [
        "run",
        "--task",
        task,
        "--out",
        str(out),
        *flags(**{**LONG, **changed}),
        "--space",
        "tapt",
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_keeps_it_and_says_how_to_go_on(number, code, task, whole, tmp_path):
    out, errors = tmp_path / "a run", tmp_path / "errors"
    child = started(commands, command(task, out), str(errors))
    wait_for_steps(child, out, 3)
    os.kill(child.pid, number)
    assert ended(child) == code, errors.read_text("utf-8")
    said, done = errors.read_text("utf-8"), steps_done(out)
    assert f"interrupted after step {done}, which is kept; go on with\n" in said
    assert f"aang run --resume --out {shlex.quote(str(out))}" in said
    assert "Traceback" not in said
    assert (out / "checkpoint" / f"step-{done:06d}").is_dir()
    assert 3 <= done < LONG["max_steps"]
    assert ended(started(commands, ["run", "--resume", "--out", str(out)], str(errors))) == 0
    assert contents(out) == whole


def test_a_second_signal_and_one_outside_training_stop_at_once():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interruption() as interruption:
        interruption.held = True
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


class Impatient(aang.Callback):
    """Asks the run to stop after its n-th step."""

    def __init__(self, step):
        self.step, self.done = step, 0

    @property
    def stopping(self):
        return self.done == self.step

    def on_step(self, session, record, progress):
        self.done = progress.done


@pytest.mark.parametrize("step", [2, 5, 12])
def test_a_watcher_can_stop_a_run_between_any_two_steps(step, task, whole, tmp_path):
    out, chosen = tmp_path / "run", settings(training=LONG, space="tapt")
    with pytest.raises(Stopped, match=f"after step {step}"):
        aang.run(task=task, out=out, callbacks=Impatient(step), **chosen)
    aang.run(out=out, resume=True)
    assert contents(out) == whole


def test_two_processes_do_not_train_in_one_directory(task, tmp_path):
    out = tmp_path / "run"

    class Second(aang.Callback):
        def on_step(self, session, record, progress):
            with pytest.raises(RunError, match="another process is at work on"):
                aang.run(out=out, resume=True)

    chosen = settings(training={"max_steps": 1, "final_epochs": 0}, method="finetune")
    aang.run(task=task, out=out, callbacks=Second(), **chosen)


def test_files_may_not_grow_and_the_checkpoint_before_is_whole(task, whole, tmp_path):
    """The limit on a file's size meets a checkpoint in the middle; the run goes on when it is lifted."""
    out, errors = tmp_path / "run", tmp_path / "errors"
    with pytest.raises(Stopped):
        aang.run(
            task=task, out=out, callbacks=Impatient(2), **settings(training=LONG, space="tapt")
        )
    again = ["run", "--resume", "--out", str(out)]
    child = started(commands, again, str(errors), {"RLIMIT_FSIZE": 100_000})
    assert ended(child) == 1
    said = errors.read_text("utf-8")
    assert "Error: cannot write" in said
    assert f"go on with\n  aang run --resume --out {out}" in said
    assert "Traceback" not in said
    assert [p.name for p in (out / "checkpoint").iterdir()] == ["step-000002"]
    assert ended(started(commands, again, str(errors))) == 0
    assert contents(out) == whole


DISK = """
set -e
mount -t tmpfs -o size={size}k none {place}
{python} -m aang_cli {arguments} || echo "exit $?"
ls {place}/run/checkpoint
mount -o remount,size=64m {place}
{python} -m aang_cli run --resume --json --out {place}/run > {report}
"""


def test_a_full_disk(task, whole, tmp_path):
    """A real file system of too few bytes; made in a mount namespace of its own, where the machine allows that."""
    place = tmp_path / "small"
    place.mkdir()
    unshare = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    try:
        trial = [*unshare, "mount", "-t", "tmpfs", "none", str(place)]
        able = subprocess.run(trial, capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("needs leave to mount a file system of its own")
    script = DISK.format(
        size=3000,
        place=place,
        python=shlex.quote(sys.executable),
        arguments=shlex.join(command(task, place / "run")),
        report=tmp_path / "report.json",
    )
    done = subprocess.run([*unshare, "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit 1" in done.stdout, done.stderr
    assert ": No space left on device. What was written before is whole" in done.stderr
    assert "free some space there, and go on with" in done.stderr
    assert "Traceback" not in done.stderr
    assert "step-" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["summary"] == whole[0]["summary"]


def test_exhausted_memory_names_the_setting_to_lower(task, tmp_path):
    """An allocation that no machine can make, in the fifth forward pass; the real error of torch's allocator."""
    out = tmp_path / "run"
    chosen = settings(training={**LONG, "eval_every": 2}, space="tapt", meta={"engine": "looped"})
    with pytest.raises(RunError) as error:
        aang.run(task=task, out=out, registry=registry_with("hungry"), with_=["hungry"], **chosen)
    said = str(error.value)
    assert "out of memory" in said
    assert "Lower training.micro_batch_tokens to" in said
    assert f"change it in {out / 'config.toml'}, and go on with" in said
    assert list((out / "checkpoint").glob("step-*"))


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("CUDA out of memory. Tried"),
    ],
)
def test_every_way_to_say_out_of_memory(cause):
    with pytest.raises(RunError, match="begin again"), explained(aang.RunConfig()):
        raise cause


def test_other_faults_keep_their_traceback():
    with pytest.raises(ValueError, match="a bug"), explained(aang.RunConfig()):
        raise ValueError("a bug")
