"""`fork-merge`: branches against trainings of their own, merges against sums by hand, harm, interruption, refusals."""

import json

import attrs
import pytest
import torch
from _children import in_two_processes
from _plugins import ORIGIN
from _rules import RECORDS, registry
from _steps import MIXED, bind
from _tasks import settings, untimed, write_task
from aang_cli.closing import show
from aang_weightings.algorithm import check_shares
from safetensors.torch import load_file, save_file

import aang_core as aang
from aang_core.analysis.page.page import build_story, page
from aang_core.batch.packing import pack, plain_batch
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.method.weights.chosen import chosen_weighting
from aang_core.processes import Processes
from aang_core.registry.registry import Registered
from aang_core.rundir.finished import read_run
from aang_core.testing import tiny_backbone, tiny_task
from aang_core.train.callbacks import Callback, Stopped
from aang_core.train.fork.rounds import Fork
from aang_core.train.fork.state import merged, state_of
from aang_core.train.session import build_session
from aang_core.train.step import Preparation, train_step
from aang_core.train.trainer import Trainer

M, T = 3, 8
"""Steps of a round's branch, and of the schedule: the last round is shorter."""


class Denying:
    """An output that wants every label to be wrong."""

    def __init__(self, output):
        self.output = output

    def __getattr__(self, name):
        return getattr(self.output, name)

    def losses(self, head, hidden, targets):
        return -20 * self.output.losses(head, hidden, targets)


def session_of(method, harmful=False, rows=0, processes=None, **training):
    task, backbone = tiny_task(), tiny_backbone(torch.float64)
    config = RunConfig.from_mapping(
        {
            "method": method,
            "training": {
                "end_task_rows": 4,
                "auxiliary_rows": 13,
                "max_steps": T,
                "eval_every": M,
                "final_epochs": 0,
                "lr": 3e-3,
                **training,
            },
            "meta": {"rule": "fork-merge"},
            "weightings": {"fork-merge": {"rows": rows}},
        }
    )
    objectives = bind(task, backbone, MIXED) if method != "finetune" else []
    if harmful:
        one = next(o for o in objectives if o.id.endswith("end-task"))
        objectives = [attrs.evolve(one, output=Denying(one.output))]
    entry = Registered(record=RECORDS["fork-merge"], provenance=ORIGIN)
    return build_session(config, 0, task, backbone, objectives, processes or Processes(), entry)


def model(session):
    """The encoder and the end-task's head."""
    own = {f"head.{n}": p for n, p in session.end_task_head.named_parameters()}
    return {**{n: p for n, p in session.parameters.items() if n.startswith("body.")}, **own}


def copied(session):
    return {name: parameter.detach().clone() for name, parameter in model(session).items()}


def trained(session, directory):
    trainer = Trainer(session, directory, Callback())
    trainer.run(resume=False)
    return trainer


@pytest.mark.parametrize(("every", "total"), [(3, 8), (2, 4), (5, 3), (1, 2)])
def test_each_step_of_the_schedule_is_taken_once_by_each_branch_of_its_round(every, total):
    fork, expected, ends = Fork(every, total, (0.0, 1.0), ()), [], []
    for start in range(0, total, every):
        steps = list(range(start, min(start + every, total)))
        expected += [("plain", step) for step in steps] + [("joint", step) for step in steps]
        ends.append(len(expected))
    assert [fork.place(n) for n in range(2 * total)] == expected
    assert [n for n in range(1, 2 * total + 1) if fork.ends_round(n)] == ends


def test_a_round_is_plain_and_joint_training_merged_at_the_share_of_the_lowest_dev_loss():
    """Against sessions of ``finetune`` and ``static`` that take the same steps, and losses row by row."""
    session = session_of("aang")
    preparation = Preparation(session, "joint", 2 * T)
    for step in range(2 * M):
        session.fork.begin(session, step)
        train_step(session, preparation, step, 2 * T)
        merge = session.fork.end(session, step)
        assert (merge is None) == (step < 2 * M - 1)
    preparation.close()
    alone = {}
    for method, phase in (("finetune", "end-task"), ("static", "joint")):
        own = session_of(method)
        preparation = Preparation(own, phase, T)
        for step in range(M):
            train_step(own, preparation, step, T)
        preparation.close()
        alone[method] = copied(own)
    found, judge = copied(session), session_of("finetune")
    losses = {}
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        with torch.no_grad():
            for name, parameter in model(judge).items():
                plain, joint = alone["finetune"][name], alone["static"][name]
                parameter.copy_((1 - share) * plain + share * joint)
        each = []
        for row in judge.stopping:
            hidden = judge.model.backbone.encode(plain_batch([row]))
            targets = judge.end_task.targets(pack([row]))
            each.append(float(judge.end_task.losses(judge.end_task_head, hidden, targets).detach()))
        losses[f"{share:g}"] = sum(each) / len(each)
        if share == merge.share:
            for name, parameter in model(judge).items():
                torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-12, atol=1e-14)
    assert merge.losses == pytest.approx(losses, rel=1e-10)
    assert losses[f"{merge.share:g}"] == min(losses.values())
    assert len(set(losses.values())) == 5
    assert merge.tokens == 5 * sum(len(row) for row in judge.stopping)


def test_objectives_that_harm_leave_plain_fine_tuning_to_the_bit(tmp_path):
    """Also the moments of AdamW, over which the branches would differ from then on."""
    learning = {"lr": 1e-4, "head_lr": 1e-2}  # with which plain fine-tuning lowers the dev loss
    forked = trained(session_of("aang", harmful=True, **learning), tmp_path / "forked")
    plain = trained(session_of("finetune", **learning), tmp_path / "plain")
    assert [merge["share"] for merge in forked.progress.merges] == [0.0, 0.0, 0.0]
    assert all(merge["losses"]["1"] > merge["losses"]["0"] for merge in forked.progress.merges)
    ours, theirs = model(forked.session), model(plain.session)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in ours.items())
    assert forked.progress.best_score == plain.progress.best_score
    scores = [[{**e, "step": 0} for e in t.progress.evaluations] for t in (forked, plain)]
    assert scores[0] == scores[1]
    cost = {t: t.progress.cost for t in (forked, plain)}
    assert cost[forked]["labelled_rows"] == 2 * cost[plain]["labelled_rows"]
    assert forked.progress.done == 2 * plain.progress.done
    records = [json.loads(line) for line in (tmp_path / "forked/history.jsonl").open()]
    alone = [json.loads(line) for line in (tmp_path / "plain/history.jsonl").open()]
    branch = [r for r in records if r["branch"] == "plain"]
    assert [r["losses"] for r in branch] == [r["losses"] for r in alone]
    assert [r["lr"] for r in branch] == [r["lr"] for r in alone]
    assert [r["merge"]["share"] for r in records if "merge" in r] == [0.0, 0.0, 0.0]
    assert "branch" not in alone[0]


def test_moments_that_one_branch_lacks_are_the_others_and_counters_are_not_mixed():
    plain = {"body.a": torch.tensor([0.0, 4.0]), "optimizer.step.body.a": torch.tensor(7.0)}
    joint = {
        "body.a": torch.tensor([4.0, 0.0]),
        "optimizer.step.body.a": torch.tensor(8.0),
        "optimizer.exp_avg.body.b": torch.tensor(3.0),
    }
    found = merged(plain, joint, 0.25)
    assert found["body.a"].tolist() == [1.0, 3.0]
    assert found["optimizer.step.body.a"] == 8.0
    assert found["optimizer.exp_avg.body.b"] == 3.0
    assert merged(plain, joint, 0.0) is plain
    assert merged(plain, joint, 1.0) is joint


def with_rows(rows, values, size=4):
    """A state whose table has moments for these rows; for all where `rows` is None."""
    moment = torch.tensor(values, dtype=torch.float64)[:, None]
    found = {f"optimizer.{key}.body.t": moment for key in ("exp_avg", "exp_avg_sq")}
    found["body.t"] = torch.ones(size, 1, dtype=torch.float64)
    if rows is not None:
        found["optimizer.rows.body.t"] = torch.tensor(rows)
    return found


@pytest.mark.parametrize(
    ("plain", "joint", "rows", "moments"),
    [
        (with_rows([2], [4.0]), with_rows([3, 2], [8.0, 0.0]), [2, 3], [3.0, 2.0]),
        (with_rows([2], [4.0]), with_rows(None, [0.0, 4, 8, 0]), None, [0.0, 1, 5, 0]),
        (with_rows(None, [4.0, 0, 0, 0]), with_rows([1], [4.0]), None, [3.0, 1, 0, 0]),
    ],
    ids=["both by rows", "joint a whole", "plain a whole"],
)
def test_moments_of_different_rows_are_merged_row_by_row(plain, joint, rows, moments):
    found = merged(plain, joint, 0.25)
    known = found.get("optimizer.rows.body.t")
    assert (known if known is None else known.tolist()) == rows
    assert found["optimizer.exp_avg.body.t"][:, 0].tolist() == moments
    assert found["optimizer.exp_avg_sq.body.t"][:, 0].tolist() == moments


class StopAt(aang.Callback):
    def __init__(self, step):
        self.step, self.done = step, 0

    def on_step_end(self, session, record, progress):
        self.done = progress.done

    @property
    def stopping(self):
        return self.done == self.step


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, aang.run(task=str(task), out=out, registry=registry(), **chosen())


def chosen():
    """A slow copy is judged too, so that it is forked as well."""
    training = {"max_steps": 5, "eval_every": 2, "final_epochs": 0, "mean_evaluation": "best"}
    return settings(space="x+y+z", meta={"rule": "fork-merge"}, training=training)


def contents(directory):
    report = json.loads((directory / "report.json").read_text("utf-8"))
    files = ("history.jsonl", "predictions.jsonl", "model/model.safetensors")
    return untimed(report), {name: (directory / name).read_bytes() for name in files}


@pytest.mark.parametrize("step", [1, 2, 3, 4, 9])
def test_a_run_that_is_stopped_within_a_branch_goes_on_to_the_same_bits(
    step, task, whole, tmp_path
):
    out = tmp_path / "run"
    how = {"registry": registry(), **chosen()}
    with pytest.raises(Stopped):
        aang.run(task=str(task), out=out, callbacks=StopAt(step), **how)
    aang.run(out=out, resume=True, registry=registry())
    assert contents(out) == contents(whole[0])


def test_the_report_has_every_merge(whole):
    directory, report = whole
    (seed,) = report.seeds
    assert [merge["step"] for merge in seed.merges] == [4, 8, 10]
    assert all(set(merge["losses"]) == {"0", "0.25", "0.5", "0.75", "1"} for merge in seed.merges)
    for merge in seed.merges:
        assert merge["losses"][f"{merge['share']:g}"] == min(merge["losses"].values())
    assert seed.engine == "plain"
    assert read_run(directory).report["seeds"][0]["merges"] == list(seed.merges)


def test_the_closing_lines_and_the_page_say_how_often_the_objectives_entered(whole, capsys):
    directory, report = whole
    (seed,) = report.seeds
    shares = [merge["share"] for merge in seed.merges]
    entered = sum(share > 0 for share in shares)
    show(report)
    listed = ", ".join(f"{share:g}" for share in shares)
    said = f"seed 0: the objectives entered {entered} of 3 merges (shares {listed})"
    assert said in capsys.readouterr().out
    html, _ = page(build_story(read_run(directory)))
    assert f"The objectives enter {entered} of 3 merges" in html
    assert "share of the loss" not in html  # λ of the joint branch does not move


def test_a_callback_ends_a_forked_run_at_its_next_merge(task, tmp_path):
    class Ending(aang.Callback):
        done = 0

        def on_step_end(self, session, record, progress):
            self.done = progress.done

        @property
        def should_training_stop(self):
            return self.done >= 5

    report = aang.run(
        task=str(task), out=tmp_path / "run", registry=registry(), callbacks=Ending(), **chosen()
    )
    (seed,) = report.seeds
    assert seed.steps == 8
    assert len(seed.merges) == 2


def run_of(processes, directory, stop):
    """A training in the directory, interrupted after `stop` steps; what it leaves, as tensors."""
    chosen = {"rows": 3, "mean_evaluation": "best", "processes": processes}
    with pytest.raises(Stopped):
        Trainer(session_of("aang", **chosen), directory, StopAt(stop)).run(resume=False)
    processes.barrier()  # the first one may still be writing its checkpoint
    trainer = Trainer(session_of("aang", **chosen), directory, Callback())
    progress = trainer.run(resume=True)
    found = {n: t.contiguous() for n, t in state_of(trainer.session).items()}
    for i, merge in enumerate(progress.merges):
        numbers = [merge["step"], merge["share"], *merge["losses"].values()]
        found[f"merge.{i}"] = torch.tensor(numbers, dtype=torch.float64)
    found["cost"] = torch.tensor(list(progress.cost.values()))
    found["scores"] = torch.tensor([e[trainer.session.task.metric] for e in progress.evaluations])
    return found


def part(processes, directory):
    """The same as one of two processes, which leaves a file of its own."""
    save_file(run_of(processes, directory / "run", 4), directory / f"{processes.rank}.safetensors")


def test_two_processes_merge_as_one_does_and_hold_the_same_bits(tmp_path):
    """Also the slow copy, the moments and the cost; both trainings go on from within a branch."""
    one = run_of(Processes(), tmp_path / "alone", 4)
    in_two_processes(part, tmp_path)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys() == one.keys()
    assert {"merge.0", "merge.1", "merge.2"} < one.keys()
    for name, expected in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize(
    ("meta", "said"),
    [({"control": "shuffled"}, "meta.control"), ({"dev_folds": 3}, "meta.dev_folds = 3")],
)
def test_settings_that_can_do_nothing_in_a_forked_run_are_refused(meta, said):
    config = RunConfig.from_mapping({"meta": {"rule": "fork-merge", **meta}})
    with pytest.raises(ConfigError, match=f"forks and merges.*{said}.*leave it out"):
        chosen_weighting(config, registry())


@pytest.mark.parametrize("shares", [[], [0.5], [0, 0.5], [0, 0.5, 0.5, 1], [0, "x", 1], [0, 2, 1]])
def test_shares_must_rise_from_0_to_1(shares):
    assert len(list(check_shares({"shares": shares, "rows": 8}))) == 1


@pytest.mark.parametrize("shares", [[0, 1], [0.0, 0.1, 1.0]])
def test_shares_that_do(shares):
    assert not list(check_shares({"shares": shares, "rows": 0}))
    assert len(list(check_shares({"shares": shares, "rows": -1}))) == 1


def test_merges_read_at_most_so_many_dev_rows_the_same_all_along():
    every, again = session_of("aang", rows=0), session_of("aang", rows=3)
    assert [row.origin for row in every.fork.rows] == [row.origin for row in every.stopping]
    few = [row.origin for row in again.fork.rows]
    assert len(few) == 3
    assert few == [row.origin for row in session_of("aang", rows=3).fork.rows]
    assert few == [row.origin for row in every.stopping if row.origin in few]
