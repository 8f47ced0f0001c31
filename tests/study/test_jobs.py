"""Seeds in processes of their own leave what seeds one after another leave."""

import json
import shutil
import subprocess
import sys
import time

import attrs
import pytest
import torch
from _tasks import flags, settings, untimed, write_task

import aang_core as aang
from aang_core.errors import ConfigError
from aang_core.processes import Processes
from aang_core.study.seeds import SeedElsewhere, check_jobs
from aang_core.study.trials import pool
from aang_core.train.callbacks import Stopped


class Listening(aang.Callback):
    def __init__(self):
        self.course, self.remarks, self.steps, self.evaluations = [], [], {}, {}

    def on_step(self, session, record, progress):
        self.steps.setdefault(session.seed, []).append((record, progress))

    def on_evaluation(self, session, progress):
        self.evaluations[session.seed] = progress.evaluations

    def on_preparation(self, what, done, total):
        self.course.append((what, done, total))

    def on_remark(self, remark):
        self.remarks.append(remark)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


SEEDS = [4, 1]


@pytest.fixture(scope="module")
def beside(task, tmp_path_factory):
    """A run whose seeds trained beside each other, its report, and who listened.

    Each process has one thread, as where there are two cores: results depend on it in their last bits.
    """
    out, heard = tmp_path_factory.mktemp("runs") / "two", Listening()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "cores", lambda: 2)
        report = aang.run(
            task=str(task), seeds=SEEDS, out=out, jobs=2, callbacks=heard, **settings()
        )
    return out, report, heard


def test_beside_each_other_as_one_after_another(beside, task, tmp_path):
    (out, two, heard), alone, seeds = beside, Listening(), SEEDS
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    one = aang.run(task=str(task), seeds=seeds, out=tmp_path / "one", callbacks=alone, **settings())
    torch.set_num_threads(before)
    first, second = (untimed(json.loads(json.dumps(r.as_mapping()))) for r in (one, two))
    assert first == second
    assert [seed.seed for seed in two.seeds] == seeds
    assert (out / "seed-4" / "model" / "model.safetensors").is_file()
    assert heard.course[-1] == ("steps of 2 seeds", 8, 8)
    assert all(done < total for _, done, total in heard.course[:-1])
    assert heard.evaluations == alone.evaluations
    for seed in seeds:  # every record comes from the other process as it was there
        assert [(vars_of(r), p) for r, p in heard.steps[seed]] == [
            (vars_of(r), p) for r, p in alone.steps[seed]
        ]


def vars_of(record):
    return attrs.asdict(record)


class Needing(aang.Callback):
    def on_seed(self, session):
        raise AssertionError("nobody can call this")


class Curious(aang.Callback):
    def on_step(self, session, record, progress):
        self.found = session.task


def test_a_callback_that_needs_the_session_is_refused_before_anything_starts(task, tmp_path):
    with pytest.raises(ConfigError, match="Needing overrides on_seed, for which the session"):
        aang.run(
            task=str(task),
            seeds=[0, 1],
            out=tmp_path / "run",
            jobs=2,
            callbacks=Needing(),
            **settings(),
        )
    assert not (tmp_path / "run").exists()


def test_a_step_of_another_process_says_that_the_session_is_there():
    with pytest.raises(AttributeError, match=r"session\.task is in another process"):
        Curious().on_step(SeedElsewhere(3), None, None)


class Impatient(aang.Callback):
    """Stops a run after some steps of any seed."""

    steps = 0

    @property
    def stopping(self):
        return self.steps > 2

    def on_step(self, session, record, progress):
        self.steps += 1


def test_a_callback_stops_the_seeds_of_other_processes(task, tmp_path):
    out = tmp_path / "run"
    made = settings(training={"max_steps": 100_000})
    with pytest.raises(Stopped):
        aang.run(task=str(task), seeds=[0, 1], out=out, jobs=2, callbacks=Impatient(), **made)
    assert list(out.glob("seed-*/checkpoint/step-*"))
    assert not (out / "report.json").exists()


def test_resuming_takes_finished_seeds(beside, tmp_path):
    shutil.copytree(beside[0], tmp_path / "run")
    before = (tmp_path / "run" / "report.json").read_bytes()
    (tmp_path / "run" / "report.json").unlink()
    aang.run(out=tmp_path / "run", resume=True, jobs=2)
    assert (tmp_path / "run" / "report.json").read_bytes() == before


def test_nobody_writes_on_when_the_first_process_is_killed(task, tmp_path):
    """Else the one who resumes would find seeds that others still write."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "aang_cli", "run", "--task", str(task), "--jobs", "2"]
    command += [*flags(max_steps=100_000), "--seed", "0", "--seed", "1", "--out", str(out)]
    histories = [out / f"seed-{seed}" / "history.jsonl" for seed in (0, 1)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not all(path.exists() and path.stat().st_size for path in histories):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    before = None
    while (sizes := [path.stat().st_size for path in histories]) != before:
        before = sizes
        time.sleep(2)


def test_jobs_and_processes_exclude_each_other():
    with pytest.raises(ConfigError, match="shares each seed among 2 processes"):
        check_jobs(2, aang.RunConfig(), (), Processes(0, 2))
    with pytest.raises(ConfigError, match="at least 1"):
        check_jobs(0, aang.RunConfig(), (), Processes())
