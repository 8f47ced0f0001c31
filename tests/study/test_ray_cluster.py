"""A sweep on a Ray cluster of three nodes, one of which dies in the middle: every trial ends once all the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from importlib.util import find_spec

import psutil
import pytest
from _tasks import write_task

from aang_core.rundir.finished import read_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs ray (the extra aang[sweep])"),
]

STEPS = 400
SPEC = """
[base]
seeds = [0, 1, 2, 3]
task = '{task}'
model = "scratch:tiny"
method = "finetune"
device = "cpu"
[base.training]
max_steps = {steps}
patience = 1000000
eval_every = 20
end_task_rows = 4
final_epochs = 0
[[runs]]
name = "plain"
"""


@pytest.fixture
def cluster(monkeypatch):
    """Three nodes of one CPU each on this machine."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(2):
        made.add_node(**node)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def trials_of(node):
    """The processes of trials that a node's workers have started."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for child in psutil.Process(raylet.process.pid).children(recursive=True):
        try:
            if "aang_core.study.trials.trial" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue  # it has ended meanwhile
    return found


def waited(condition, process, seconds=400.0):
    """Wait until a condition holds while the sweep runs."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


def test_trials_spread_over_nodes_and_outlive_one(cluster, tmp_path):
    out, spec = tmp_path / "out", tmp_path / "spec.toml"
    spec.write_text(SPEC.format(task=write_task(tmp_path / "boxes"), steps=STEPS), "utf-8")
    arguments = ["--out", str(out), "--ray", cluster.address, "--workers", "3", "--retries", "2"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "aang_cli", "sweep", str(spec), *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    nodes = [cluster.head_node, *cluster.worker_nodes]
    waited(lambda: all(len(trials_of(node)) == 1 for node in nodes), sweep)
    lost = nodes[-1]
    (orphan,) = trials_of(lost)
    runs = out / "runs" / "plain"
    waited(lambda: len(list(runs.glob("seed-*/checkpoint/step-*"))) >= len(nodes), sweep)
    cluster.remove_node(lost, allow_graceful=False)
    said, remarks = sweep.communicate(timeout=800)
    assert sweep.returncode == 0, remarks
    found = json.loads(said)
    assert [t["state"] for t in found["trials"]] == ["finished"] * 4
    assert len(re.findall("attempt [23]$", remarks, re.MULTILINE)) >= 1, "it was begun elsewhere"
    assert not orphan.is_running(), "a trial does not outlive its node"
    assert sorted(re.findall(r"^\d/4", remarks, re.MULTILINE)) == ["1/4", "2/4", "3/4", "4/4"]
    for seed in range(4):
        history = (runs / f"seed-{seed}" / "history.jsonl").read_text("utf-8").splitlines()
        steps = [json.loads(line)["step"] for line in history]
        assert steps == list(range(1, STEPS + 1)), "each step counts once"
        assert read_run(runs / f"seed-{seed}").seeds == (seed,)
