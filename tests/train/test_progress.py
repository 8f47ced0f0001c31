"""How far a seed has come: which evaluation is the best, and runs whose dev score is never finite."""

import json
import math

import pytest
from _tasks import settings, write_task
from aang_cli.progress import ProgressBar, time_left
from rich.progress import Task

import aang_core as aang
from aang_core.errors import RunError
from aang_core.train.callbacks import Progress, Spent


def after(*scores: float) -> Progress:
    progress = Progress()
    for score in scores:
        progress = progress.charged(labelled_rows=1, rows=1, tokens=1, skipped=False)
        progress = progress.evaluated({"f1": score}, "f1")
    return progress


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_never_the_best(wrong):
    assert after(wrong).best_score is None
    assert (after(wrong).best_step, after(wrong).waited) == (0, 1)
    later = after(wrong, 0.1, wrong, 0.2, 0.2)
    assert (later.best_score, later.best_step, later.waited) == (0.2, 5, 1)
    assert not after(wrong).is_best
    assert not Progress().is_best


def test_of_equal_scores_the_later_is_the_best_and_patience_runs_on():
    progress = after(0.1, 0.3, 0.3, 0.3)
    assert (progress.best_step, progress.best_number, progress.waited) == (4, 3, 2)
    assert progress.is_best
    assert (after(0.3, 0.1).best_step, after(0.3, 0.1).is_best) == (1, False)
    probed = progress.evaluated({"f1": 0.3}, "f1", step=progress.best_step)
    assert (probed.best_number, probed.is_best) == (3, False)  # a last probe has to be better


def test_a_last_probe_has_the_step_of_the_encoder_that_it_reads():
    progress = after(0.1, 0.3, 0.2)
    probed = progress.evaluated({"f1": 0.4}, "f1", step=progress.best_step)
    assert (probed.best_step, probed.best_score, probed.evaluations[-1]["step"]) == (2, 0.4, 2)


def test_a_run_whose_dev_is_never_finite_says_so_and_its_history_is_strict_json(tmp_path, capsys):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    task = write_task(tmp_path / "boxes", "regression")
    bar = ProgressBar()
    wild = {"lr": 1e30, "head_lr": 1e30, "warmup": 0.0, "max_steps": 3, "eval_every": 1}
    with (
        pytest.raises(RunError, match=r"dev pearson was not finite .* in any of 3 evaluations"),
        bar,
    ):
        aang.run(
            task=str(task),
            out=tmp_path / "run",
            callbacks=bar,
            **settings(method="finetune", training=wild),
        )
    assert "best none yet" in capsys.readouterr().err
    lines = (tmp_path / "run" / "history.jsonl").read_text("utf-8").splitlines()
    losses = [json.loads(line, parse_constant=refuse)["losses"]["end-task"] for line in lines]
    assert len(losses) == 3
    assert None in losses


def test_a_bar_shows_names_as_they_are(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a console takes it for a terminal
    bar = ProgressBar()
    with bar:
        bar.on_preparation("reading [/b] of [red]", 0, 2)
    assert "reading [/b] of [red]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("elapsed", "done", "total", "began", "said"),
    [
        (None, 0, 100, 0, ""),  # nothing is known before the first step
        (2.0, 1, 11, 0, "20 s left"),
        (6.0, 1, 201, 0, "20 min left"),
        (60.0, 1, 201, 0, "3 h 20 min left"),
        (
            6.0,
            101,
            201,
            100,
            "10 min left",
        ),  # a hundred steps of an earlier process took no time here
        (9.0, 11, 11, 0, ""),
    ],
)
def test_the_time_left_is_known_from_the_first_step_on(elapsed, done, total, began, said):
    task = Task(0, "", total, done, _get_time=lambda: elapsed or 0.0, fields={"began": began})
    task.start_time = None if elapsed is None else 0.0
    assert time_left(task) == said


def test_what_another_seed_has_said_is_not_said_again(capsys):
    bar = ProgressBar()
    for remark in (
        "seed 0: 13 of 247 examples are longer than 128 positions and were cut",
        "seed 1: 12 of 247 examples are longer than 128 positions and were cut",
        "step 3 was skipped: not finite in mask",
        "step 4 was skipped: not finite in mask",
    ):
        bar.on_remark(remark)
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in said] == ["seed", "step", "step"]


def test_time_adds_up_over_interruptions():
    first = Spent(100.0, 40.0).since(Spent(90.0, 38.0))
    assert first == Spent(10.0, 2.0)
    assert first.plus(Spent(7.0, 5.0).since(Spent(4.0, 4.0))) == Spent(13.0, 3.0)
