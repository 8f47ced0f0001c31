"""Cross-fitting: what gives the dev gradient of a step is not in the step."""

from collections import Counter
from itertools import pairwise

import attrs
import pytest
import torch
from _steps import bind
from _tasks import settings, write_task

import aang_core as aang
from aang_core.batch.packing import prepare
from aang_core.batch.rows import Origin
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.method.cross_fitting import Folds, fingerprint
from aang_core.processes import Processes
from aang_core.testing import tiny_backbone, tiny_task
from aang_core.train.session import build_session, check_folds

IDS = ("task/mask/bidirectional/denoise", "task/no-op/bidirectional/end-task")


def labelled(backbone, task):
    examples = list(task.splits["train"])
    return backbone.rows(examples, [Origin("train", i, 0) for i in range(len(examples))])


def session_of(**meta):
    config = RunConfig.from_mapping(
        {
            "training": {"end_task_rows": 5, "auxiliary_rows": 8},
            "meta": {"dev_folds": 3, "dev_gradient_every": 2, "dev_rows": 4, **meta},
        }
    )
    task, backbone = tiny_task(), tiny_backbone()
    return build_session(config, 0, task, backbone, bind(task, backbone, IDS), Processes())


def test_every_row_is_in_one_fold_and_repeats_share_theirs():
    rows = labelled(tiny_backbone(), tiny_task())
    rows = [*rows, attrs.evolve(rows[0], origin=Origin("train", 99, 0)), rows[1]]
    folds = Folds(rows, 4, 1, seed=0)
    assert sum(len(held) for held in folds.held) == len(rows)
    for fold in range(4):
        held, others = (
            {fingerprint(row) for row in part[fold]} for part in (folds.held, folds.others)
        )
        assert held == folds.keys[fold]
        assert held
        assert not held & others
        assert len(folds.held[fold]) + len(folds.others[fold]) == len(rows)


def test_a_fold_is_held_as_long_as_a_dev_gradient_and_all_take_turns():
    folds = Folds(labelled(tiny_backbone(), tiny_task()), 3, 2, seed=0)
    assert [folds.of(step) for step in range(8)] == [0, 0, 1, 1, 2, 2, 0, 0]


def test_over_an_epoch_of_each_fold_every_row_is_trained_on_equally_often():
    """A plain reading: a fold's steps, one after the other, walk through the rows of the others in epochs."""
    rows = labelled(tiny_backbone(), tiny_task())
    folds = Folds(rows, 2, 3, seed=0)
    for fold in range(2):
        others = folds.others[fold]
        steps = [s for s in range(6 * len(others)) if folds.of(s) == fold][: len(others)]
        seen = Counter(row.origin for step in steps for row in folds.take(step, 2))
        assert seen == {row.origin: 2 for row in others}


def test_no_step_trains_on_a_text_of_its_dev_gradient():
    session = session_of()
    for step in range(7):
        plan = session.planner.plan(step, session.weights)
        held = session.planner.folds.held[step // 2 % 3]
        _, measure = session.dev._examples(step - step % 2)
        keys = {fingerprint(row) for row in held}
        assert {fingerprint(row) for row in measure} <= keys
        trained = session.planner.labelled_rows(plan)
        assert len(trained) == 5
        assert not keys & {fingerprint(row) for row in trained}
        for number, count in zip(plan.numbers[1:], plan.rows, strict=True):
            objective = session.planner.objectives[number - 1]
            draw = torch.Generator().manual_seed(step)
            texts = {bytes(row.inputs["input_ids"].numpy()) for row in held}
            avoided = lambda row, step=step: session.planner.folds.is_held(step, row)  # noqa: E731
            piece = prepare(objective, count, draw, avoided=avoided)
            ends = piece.packed.offsets.tolist()
            pairs = pairwise(ends)
            drawn = {bytes(piece.packed.original["input_ids"][a:b].numpy()) for a, b in pairs}
            assert len(piece.rules) == count
            assert not drawn & texts


def test_the_final_fine_tuning_reads_every_row():
    session = session_of()
    plan = session.planner.end_task_plan(0, len(session.planner.labelled.rows))
    origins = {row.origin for row in session.planner.labelled_rows(plan)}
    assert len(origins) == len(session.planner.labelled.rows)


def test_a_source_of_held_texts_alone_is_refused():
    task, backbone = tiny_task(), tiny_backbone()
    (objective,) = bind(task, backbone, IDS[:1])
    with pytest.raises(ConfigError, match=r"100 draws of 3 rows gave 0 .* meta.dev_folds"):
        prepare(objective, 3, torch.Generator().manual_seed(0), avoided=lambda row: True)


@pytest.mark.parametrize(
    ("meta", "rows", "said"),
    [
        (
            {"dev_folds": 1},
            9,
            "from 2 folds to as many as there are labelled training rows .9., found 1",
        ),
        ({"dev_folds": 10}, 9, "found 10"),
        (
            {"dev_folds": 3, "dev_gradient_decay": 0.5},
            9,
            "dev_gradient_decay = 0.5 .* mixes the folds",
        ),
        ({"dev_folds": 3, "hold_back": 0.5}, 9, "hold_back = 0.5 .* parts dev"),
    ],
)
def test_what_folds_cannot_do_with_is_refused(meta, rows, said):
    with pytest.raises(ConfigError, match=said):
        check_folds(RunConfig.from_mapping({"meta": meta}), rows)
    check_folds(RunConfig.from_mapping({"meta": meta, "method": "static"}), rows)


def test_fewer_different_rows_than_folds_are_refused():
    rows = labelled(tiny_backbone(), tiny_task())[:1] * 5
    with pytest.raises(ConfigError, match=r"meta.dev_folds = 2: .* different .* found 1"):
        Folds(rows, 2, 1, seed=0)


class Stop(BaseException):
    """Ends a run as a killed process would."""


class Killer(aang.Callback):
    def on_step(self, session, record, progress):
        if progress.done == 5:
            raise Stop


def test_a_cross_fitted_run_resumes_bit_for_bit_and_reports_standard_errors(tmp_path):
    task = str(write_task(tmp_path / "boxes"))
    training = {"max_steps": 6, "final_epochs": 1}
    meta = {"dev_folds": 3, "dev_gradient_every": 2, "objectives_per_step": 2}
    chosen = settings(space="x+y+z", training=training, meta=meta)
    report = aang.run(task=task, out=tmp_path / "whole", **chosen)
    with pytest.raises(Stop):
        aang.run(task=task, out=tmp_path / "killed", callbacks=Killer(), **chosen)
    aang.run(out=tmp_path / "killed", resume=True)
    for name in ("history.jsonl", "model/model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found = report.seeds[0].alignments
    assert found["end-task"]["steps"] == 6
    assert found["end-task"]["error"] > 0
    assert set(found) - {"end-task"} <= set(report.weights["objectives"])
