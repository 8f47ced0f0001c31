"""`benchmarks/peers.py` from end to end on a tiny task: the peers, their rows and tokens, going on, clear refusals."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _tasks import write_task

import aang_core as aang
from aang_core.batch.packing import plain_batch
from aang_core.batch.rows import Origin
from aang_core.train.resolve import load_backbone, resolve, seed_task

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "peers.py"
SEED, ROWS = 3, 12
FEW = ["--steps", "4", "--eval-every", "2", "--end-task-rows", "2", "--auxiliary-rows", "4"]
"""4 steps of 6 rows: two whole passes over the 12 labelled rows."""


def run(task, out, *more, steps=FEW) -> subprocess.CompletedProcess[str]:
    words = ["--task", task, "--out", out, "--model", "scratch:tiny", "--seed", str(SEED)]
    words = [sys.executable, SCRIPT, *words, "--train-rows", str(ROWS), *steps, *more]
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    return write_task(tmp_path_factory.mktemp("peers") / "task")


@pytest.fixture(scope="module")
def done(task) -> tuple[Path, dict]:
    """The folder, and what the command printed."""
    pytest.importorskip("accelerate", reason="transformers.Trainer needs it")
    out = task.parent / "out"
    ran = run(task, out, "--json")
    assert ran.returncode == 0, ran.stderr
    return out, json.loads(ran.stdout)


def test_every_peer_trains_and_is_measured(done):
    _, said = done
    assert [row["peer"] for row in said["peers"]] == ["plain", "trainer", "aang-finetune"]
    for row in said["peers"]:
        assert row["cpu_seconds"] > 0
        assert row["peak_memory_mib"] > 50
        assert 0 <= row["test_f1"] <= 1
        assert row["dev_accuracy"] is not None
    trainer = said["peers"][1]
    assert trainer["cpu_seconds_ratio"] == trainer["tokens_ratio"] == 1
    assert {run["best_step"] for run in said["runs"]} <= {2, 4}


def test_all_peers_read_the_rows_that_aang_draws(done, task):
    out, said = done
    config = {"task": str(task), "train_rows": ROWS, "seeds": [SEED], "method": "finetune"}
    resolved = resolve(aang.RunConfig.from_mapping(config), aang.load_registry())
    drawn = seed_task(resolved, SEED).splits
    given = json.loads((out / f"rows-{SEED}.json").read_text(encoding="utf-8"))["splits"]
    for split in ("train", "dev", "test"):
        assert [row["text"] for row in given[split]] == list(drawn[split]["text"])
        assert [row["label"] for row in given[split]] == list(drawn[split]["label"])
    plain, trainer, ours = (run["tokens"] for run in said["runs"])
    assert plain == trainer == ours  # over whole passes, so the same rows whatever their order
    assert all(run["padded_tokens"] >= run["tokens"] for run in said["runs"])


@pytest.mark.parametrize("pooling", ["default", "mean"])
def test_the_head_of_the_plain_loop_reads_as_aang_does(done, task, pooling):
    given = json.loads((done[0] / f"rows-{SEED}.json").read_text(encoding="utf-8"))
    folder, examples = given["encoder"]["folder"], given["splits"]["dev"][:4]
    given["encoder"]["pooling"] = pooling
    spec = importlib.util.spec_from_file_location("peer", SCRIPT.with_name("transformers_peer.py"))
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    model, new = peer.built(given, SEED)
    assert new == {"classifier.weight", "classifier.bias"}
    training = {"training": {"pooling": pooling}}
    config = {"task": str(task), "model": folder, "method": "finetune", "device": "cpu", **training}
    resolved = resolve(aang.RunConfig.from_mapping(config), aang.load_registry())
    backbone = load_backbone(resolved, SEED)
    head = backbone.end_task_head(resolved.task).eval()
    head.shell.classifier.load_state_dict(model.classifier.state_dict())
    tokens = backbone.tokenizer(
        [row["text"] for row in examples], padding=True, return_tensors="pt"
    )
    rows = backbone.rows(examples, [Origin("task", i, 0) for i in range(4)])
    with torch.no_grad():
        theirs = model.eval()(**tokens).logits
        ours = head(backbone.encode(plain_batch(rows)), torch.arange(4))
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_the_same_command_goes_on_and_runs_nothing_twice(done, task):
    out, said = done
    file = out / "runs.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"peer": "pl')  # killed while it wrote
    again = run(task, out, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == said
    assert file.read_bytes() == whole
    assert "plain" not in again.stderr


def test_refusals_name_what_is_wrong(done, task, tmp_path):
    out, _ = done
    other = run(task, out, "--lr", "0.5")
    assert other.returncode == 1
    assert "lr is 0.5, there 0.0001" in other.stderr
    lacking = run(task, tmp_path / "new", "--peers", "setfit")
    assert "--setfit-python" in lacking.stderr
    assert not (tmp_path / "new").exists()
    uneven = run(task, tmp_path / "new", steps=["--steps", "5", "--eval-every", "2"])
    assert "multiple of --eval-every" in uneven.stderr
    missing = run(tmp_path / "nothing", tmp_path / "new")
    assert missing.returncode == 1
    assert "writing the rows of seed 3 ended with 1" in missing.stderr


def test_setfit_may_train_on_the_labels_of_dev_as_well(task, tmp_path):
    found = {}
    for name, more in (("train", ()), ("all", ("--all-labels",))):
        out = tmp_path / f"{name}.json"
        words = ["rows", "--task", task, "--train-rows", ROWS, "--dev-rows", 6, "--seed", SEED]
        script = SCRIPT.with_name("setfit_peer.py")
        command = [sys.executable, script, *words, *more, "--out", out]
        subprocess.run([str(word) for word in command], check=True)
        found[name] = json.loads(out.read_text("utf-8"))["splits"]
    assert (len(found["train"]["train"]), len(found["train"]["dev"])) == (ROWS, 6)
    assert found["all"]["train"] == found["train"]["train"] + found["train"]["dev"]
    assert "dev" not in found["all"]
