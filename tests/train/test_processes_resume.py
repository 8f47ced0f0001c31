"""A run goes on with another number of processes: what a checkpoint holds does not depend on how many there were."""

from __future__ import annotations

import json

import pytest
from _children import launched
from _tasks import settings, write_task

import aang_core as aang
from aang_core.train.callbacks import Stopped

STEPS = 6
SCRIPT = """
import os
import sys
import aang_core as aang
from aang_core.processes import leave_processes
from aang_core.train.callbacks import Stopped

out, last = sys.argv[1:]

class Until(aang.Callback):
    done = 0
    @property
    def stopping(self):
        return self.done == int(last)
    def on_step(self, session, record, progress):
        self.done = progress.done
        print(session.processes.size, progress.done)

try:
    aang.run(out=out, resume=True, callbacks=Until())
except Stopped:
    pass
leave_processes()
sys.stdout.flush()
os._exit(0)  # at a usual end threads of torch now and then abort
"""


class Until(aang.Callback):
    """Stops after a step."""

    def __init__(self, last):
        self.last, self.done = last, 0

    @property
    def stopping(self):
        return self.done == self.last

    def on_step(self, session, record, progress):
        self.done = progress.done


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """``scratch:tiny`` as a folder, without dropout: processes draw their own masks, and two draw others than one."""
    import torch
    from aang_text.encoder.checkpoint import tiny_config, tiny_tokenizer
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def history(out):
    return [json.loads(line) for line in (out / "history.jsonl").read_text("utf-8").splitlines()]


def test_from_one_process_to_two_and_back(encoder, tmp_path):
    training = {"max_steps": STEPS, "eval_every": 2, "end_task_rows": 6, "final_epochs": 0}
    chosen = settings(training=training, model=str(encoder))
    task = str(write_task(tmp_path / "boxes"))
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    expected = aang.run(task=task, out=whole, **chosen)

    with pytest.raises(Stopped):
        aang.run(task=task, out=moved, callbacks=Until(2), **chosen)
    script = tmp_path / "middle.py"
    script.write_text(SCRIPT, "utf-8")
    said = launched(2, str(script), str(moved), "4").stdout
    assert [line.split() for line in said.splitlines()] == [["2", "3"], ["2", "4"]]
    found = aang.run(out=moved, resume=True)

    assert [line["step"] for line in history(moved)] == list(range(1, STEPS + 1))
    for ours, theirs in zip(history(moved), history(whole), strict=True):
        # sums in float32 in another order, which Adam's division by the root of small second moments enlarges
        for table in ("losses", "alignments", "norms", "weights"):
            assert ours[table] == pytest.approx(theirs[table], rel=1e-3, abs=1e-4), ours["step"]
        assert ours["tokens"] == theirs["tokens"]
    assert found.summary["dev"]["mean"] == expected.summary["dev"]["mean"]
