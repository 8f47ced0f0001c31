"""Two gloo processes against one: the same gradients, alignments, weights, and the same run."""

import json

import pytest
import torch
from _children import in_two_processes, launched
from _steps import MIXED, bind
from safetensors.torch import load_file, save_file

from aang_core.config.settings import RunConfig
from aang_core.processes import Processes
from aang_core.testing import tiny_backbone, tiny_task
from aang_core.train.head_fitting import fit_heads
from aang_core.train.session import build_session
from aang_core.train.step import Preparation, train_step


def steps(processes: Processes, method: str, out: str) -> None:
    """Four steps as one of the processes; the first writes records and parameters."""
    task, backbone = tiny_task(), tiny_backbone(torch.float64)
    training = {"end_task_rows": 5, "auxiliary_rows": 13, "max_steps": 4, "fit_heads_steps": 2}
    meta = {"objectives_per_step": "all", "dev_rows": 4, "dev_head_rows": 4}
    config = RunConfig.from_mapping({"method": method, "training": training, "meta": meta})
    session = build_session(config, 0, task, backbone, bind(task, backbone, MIXED), processes)
    fit_heads(session, 2)
    preparation = Preparation(session, "joint", 3)
    records = [train_step(session, preparation, step, 4) for step in range(4)]
    preparation.close()
    if processes.is_main:
        tensors = {n: p.detach().clone() for n, p in session.parameters.items()}
        tensors["logits"] = session.weights.logits(session.factors)
        for i, record in enumerate(records):
            for name in ("losses", "alignments", "norms"):
                values = list(getattr(record, name).values())
                tensors[f"{i}.{name}"] = torch.tensor(values, dtype=torch.float64)
            tensors[f"{i}.tokens"] = torch.tensor(record.tokens)
        save_file(tensors, out)


@pytest.mark.parametrize("method", ["aang", "static"])
def test_two_processes_take_the_same_steps_as_one(method, tmp_path):
    outs = [str(tmp_path / f"{count}.safetensors") for count in (1, 2)]
    steps(Processes(), method, outs[0])
    in_two_processes(steps, method, outs[1])
    one, two = map(load_file, outs)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-7, atol=1e-10, msg=name)


def test_a_run_in_two_processes(tmp_path):
    """The command line starts them itself; one of them writes and speaks."""
    out = tmp_path / "run"
    settings = ["--set", "training.end_task_rows=4", "--set", "training.auxiliary_rows=8"]
    done = launched(
        1,
        "-m",
        "aang_cli",
        "run",
        "--space",
        "td",
        "--model",
        "scratch:tiny",
        "--max-steps",
        "4",
        *settings,
        "--set",
        "training.eval_every=2",
        "--processes",
        "2",
        "--out",
        str(out),
        "--json",
    )
    report = json.loads(done.stdout)
    assert report == json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["seeds"][0]["steps"] >= 4
    assert len((out / "history.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    assert (out / "model" / "model.safetensors").exists()
