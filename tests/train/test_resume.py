"""Interrupted runs: killed or stopped in the middle, they end as if nothing had happened."""

import json
from contextlib import suppress

import pytest
import torch
from _tasks import settings, untimed, write_task

import aang_core as aang
from aang_core.check.dry_run import disk_mib
from aang_core.errors import RunError
from aang_core.train.session import named_buffers


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


class Killer(aang.Callback):
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
        aang.run(task=str(task), out=out, callbacks=Killer(**where), **chosen)
    assert not (out / "report.json").exists()
    aang.run(out=out, resume=True)
    assert contents(out) == expected


class Heard(aang.Callback):
    def __init__(self):
        self.remarks = []

    def on_remark(self, text):
        self.remarks.append(text)


def test_a_resume_names_the_settings_that_an_older_version_did_not_know(task, tmp_path):
    """Only while the run is unfinished."""
    out, written, found = tmp_path / "run", tmp_path / "run" / "config.toml", []
    chosen = settings(method="static", training={"max_steps": 4, "eval_every": 2})
    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, callbacks=Killer(step=3), **chosen)
    lines = written.read_text("utf-8").splitlines(keepends=True)
    new = ("dev_rows = 0\n", "alignment_layers = ")  # the settings of the run, not of `meta`
    old = "".join(line for line in lines if not line.startswith(new))
    for text in ("".join(lines), old, old):
        written.write_text(text, "utf-8")
        heard = Heard()
        callbacks = [heard, *([Killer(step=4)] if text != old else [])]
        with suppress(Stop):
            aang.run(out=out, resume=True, callbacks=callbacks)
        found.append([text for text in heard.remarks if "config.toml" in text])
    assert found[0] == found[2] == []
    assert len(found[1]) == 1
    assert (
        "does not name dev_rows = 0, meta.alignment_layers = 'every-3'; the run goes on"
        in found[1][0]
    )


def test_a_finished_seed_is_not_trained_again(task, tmp_path):
    out = tmp_path / "run"

    class SecondSeed(aang.Callback):
        def on_seed(self, session):
            if session.seed == 1:
                raise Stop

    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, seeds=[0, 1], callbacks=SecondSeed(), **settings())
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


def flipped(path):
    """One bit in the first fifth of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 5 - 1] ^= 4
    path.write_bytes(data)


BEFORE = "the run goes on from checkpoint step-000002"
AGAIN = "so the seed begins again"
DAMAGE = {
    "a bit of the newest tensors": (["step-000004/tensors.safetensors"], BEFORE),
    "a bit of the newest facts": (["step-000004/state.json"], BEFORE),
    "a bit of both checkpoints": (["step-000004/state.json", "step-000002/state.json"], AGAIN),
    "a bit of the best parameters": (["best.safetensors"], AGAIN),
    "a bit of the history": (["../history.jsonl"], AGAIN),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_flipped_bit_is_noticed_said_and_repaired(case, task, whole, tmp_path):
    spoilt, said = DAMAGE[case]
    chosen, expected = whole("finetune")
    out = tmp_path / "run"
    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, callbacks=Killer(step=5), **chosen)
    for name in spoilt:
        flipped(out / "checkpoint" / name)
    report = aang.run(out=out, resume=True)
    assert any(said in remark for remark in report.seeds[0].remarks)
    assert contents(out)[1] == expected[1]
    assert not list(out.rglob("step-*"))


def test_a_checkpoint_cut_short_gives_way_to_the_one_before(task, whole, tmp_path):
    chosen, expected = whole("finetune")
    out = tmp_path / "run"
    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, callbacks=Killer(step=5), **chosen)
    path = out / "checkpoint" / "step-000004" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    report = aang.run(out=out, resume=True)
    assert any(BEFORE in remark for remark in report.seeds[0].remarks)
    assert contents(out)[1] == expected[1]


def test_the_disk_a_run_takes_is_within_what_it_says(task, tmp_path):
    out = tmp_path / "run"

    class Scales(aang.Callback):
        most, remarks = 0, ()

        def on_remark(self, remark):
            self.remarks += (remark,)

        def on_evaluation(self, session, progress):
            self.bound = disk_mib(session)
            files = (path for path in out.rglob("*.safetensors") if path.is_file())
            self.most = max(self.most, sum(path.stat().st_size for path in files) / 2**20)

    watcher = Scales()
    chosen = settings(space="tapt", training={"max_steps": 6})  # room for a final epoch
    aang.run(task=str(task), out=out, callbacks=watcher, **chosen)
    need = watcher.bound["checkpoints while it runs"] + watcher.bound["best parameters"]
    # what is seen between two checkpoints is all but the one that is written beside those that are kept
    assert need / 2 < watcher.most < need
    assert any(
        f"disk: at most {watcher.bound['total']:,.0f} MiB in {out}" in r for r in watcher.remarks
    )


class Normalised(torch.nn.Module):
    """Batch normalisation, whose running means change in training and are no parameters."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)
        self.register_buffer("passing", torch.zeros(2), persistent=False)


def test_buffers_are_kept_with_parameters():
    module = Normalised()
    module.norm(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    found = named_buffers(module, torch.nn.Linear(2, 2))
    assert sorted(found) == [
        *("body.norm.num_batches_tracked", "body.norm.running_mean", "body.norm.running_var")
    ]
    assert found["body.norm.running_mean"] is module.norm.running_mean


def test_other_settings_do_not_resume(task, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stop):
        aang.run(task=str(task), out=out, callbacks=Killer(step=3), **settings())
    with pytest.raises(RunError, match="other settings"):
        aang.run(task=str(task), out=out, resume=True, **settings(train_rows=12))
    with pytest.raises(RunError, match="no run to resume"):
        aang.run(task=str(task), out=tmp_path / "nothing", resume=True, **settings())
