"""Runs in processes of their own that can be killed: forked from one that has imported everything.

The first child costs the imports, every other one a few milliseconds; none inherits threads of the tests.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _tasks

CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["aang_core.study.run", "aang_cli.run", "aang_text.encoder.backbone", "transformers", "_warm"]
)


def started(work: Callable[..., None], *arguments: Any) -> Any:
    """A child at work; `work` is a function of a test module, and its output goes to files if it says so."""
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    return process


def ended(process: Any, seconds: float = 600) -> int:
    """A child's exit code."""
    process.join(seconds)
    assert process.exitcode is not None, "the child did not end"
    return int(process.exitcode)


def in_two_processes(work: Callable[..., None], *arguments: Any) -> None:
    """Do `work(processes, *arguments)`, a function of a test module, in two gloo processes that share its steps."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    children = [started(_part, rank, port, work, *arguments) for rank in (0, 1)]
    assert [ended(child, 240) for child in children] == [0, 0]


def _part(rank: int, port: int, work: Callable[..., None], *arguments: Any) -> None:
    """One of the two."""
    import torch

    from aang_core.processes import join_processes, leave_processes

    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    processes = join_processes()
    work(processes, *arguments)
    processes.barrier()
    leave_processes()
    os._exit(0)  # threads of torch may abort a process that tears down under load


def trains(out: str, task: str, chosen: dict[str, Any]) -> None:
    """A run through Python, from the start or from where it was killed."""
    import aang_core as aang

    if (Path(out) / "config.toml").exists():
        aang.run(out=out, resume=True)
    else:
        aang.run(task=task, out=out, **chosen)


def commands(arguments: list[str], errors: str, limits: dict[str, int] | None = None) -> None:
    """The command line: stderr goes to the file `errors`, and `limits` are set first."""
    import resource

    from aang_cli.main import main

    with Path(errors).open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
        for name, limit in (limits or {}).items():
            hard = resource.getrlimit(getattr(resource, name))[1]
            resource.setrlimit(getattr(resource, name), (limit, hard))
        try:
            main(args=arguments, prog_name="aang")
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)


def steps_done(out: Path) -> int:
    """Whole lines in the history of a run."""
    try:
        return (out / "history.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def wait_for_steps(process: Any, out: Path, count: int) -> None:
    """Until the history has `count` lines, or the child has ended."""
    deadline = time.monotonic() + 300
    while steps_done(out) < count and process.is_alive():
        assert time.monotonic() < deadline, "no such step within five minutes"
        time.sleep(0.002)


def contents(directory: Path) -> tuple[Any, dict[str, bytes]]:
    """What two runs of the same settings must share bit for bit: the report less its times, and the files."""
    report = json.loads((directory / "report.json").read_text("utf-8"))
    files = (
        *("history.jsonl", "predictions.jsonl", "fitted.safetensors"),
        *("model/model.safetensors", "checkpoint/best.safetensors"),
    )
    kept = {name: (directory / name).read_bytes() for name in files if (directory / name).exists()}
    return _tasks.untimed(report), kept


def launched(processes, *arguments, timeout=240):
    """Python with these arguments, under torch's launcher where there are several `processes`; must end well."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        ),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *arguments]
    if processes > 1:
        launcher = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
        command = [sys.executable, *launcher, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done
