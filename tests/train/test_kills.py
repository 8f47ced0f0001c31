"""``kill -9`` at random moments: whatever a run was doing, it ends as if nothing had happened."""

import random
import time

import pytest
from _children import contents, ended, started, steps_done, trains, wait_for_steps
from _tasks import settings, write_task

KILLS = 12
LIVES = 8
"""A run is left alone when it has been killed this often, so that it ends."""

TRAINING = {"max_steps": 12, "eval_every": 3, "pretrain_steps": 3, "final_epochs": 1}
STEPS = TRAINING["max_steps"]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return str(write_task(tmp_path_factory.mktemp("tasks") / "boxes"))


def killed(out, task, chosen, draw):
    """Start or resume a run, and kill it at a moment that `draw` chooses; false where it had ended before."""
    before, process = steps_done(out), started(trains, str(out), task, chosen)
    if draw.random() < 0.25:  # while it loads, or writes its first files
        time.sleep(draw.uniform(0.0, 0.8))
    else:  # in a step, an evaluation, a checkpoint, the final fine-tuning or the export
        wait_for_steps(process, out, draw.randint(before + 1, STEPS + 2))
        time.sleep(draw.uniform(0.0, 0.03 if steps_done(out) < STEPS else 0.5))
    process.kill()
    return ended(process) != 0


@pytest.mark.timeout(
    1800
)  # 20 processes: half a minute on two idle cores, far more where others work
def test_a_run_killed_again_and_again_ends_bit_for_bit_the_same(task, tmp_path):
    draw = random.Random(8)
    meta = {"dev_gradient_decay": 0.5, "update_every": 2, "objectives_per_step": 2}
    chosen = settings(training=TRAINING, meta=meta, space="tapt")
    whole = tmp_path / "whole"
    assert ended(started(trains, str(whole), task, chosen)) == 0
    expected = contents(whole)
    kills = runs = 0
    while kills < KILLS:
        out = tmp_path / f"run-{runs}"
        for _ in range(LIVES):
            if not killed(out, task, chosen, draw):
                break
            kills += 1
        else:
            assert ended(started(trains, str(out), task, chosen)) == 0
        assert contents(out) == expected
        assert not list(out.rglob("*partial*"))
        runs += 1
    print(f"{kills} kills in {runs} runs")
