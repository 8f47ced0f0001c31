"""What one training step costs, for several methods, engines and numbers of objectives.

    python benchmarks/step.py --task ../shared/data/acl-arc --objectives 3 6 12 24

Every case is a process of its own (its peak memory is its own), and the cases of a group take turns, step by step
(A B C A B C …), so that a machine whose speed drifts slows all of them. CPU and wall seconds are medians over pairs of
steps, because by default every second step of ``aang`` takes a fresh dev gradient. With ``--beside CHECKOUT`` each case
also runs with the packages of another checkout, in turns with this one's (A B A B …).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing as mp
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
WINDOW = 2
"""Steps of one figure; the default dev gradient is fresh in every second step."""

GEMM = ("aten::mm", "aten::addmm", "aten::bmm", "aten::matmul", "aten::linear", "attention")


def cases(objectives: list[int], rows: int) -> list[dict]:
    """Group after group; the cases of one group are compared with each other."""
    found = []
    for k in objectives:
        found += [
            {
                "group": f"td, {k} a step",
                "method": method,
                "engine": engine,
                "objectives": k,
                "rows": rows,
                "space": "td",
                "every": every,
                "budget": budget,
            }
            for method, engine, every, budget in (
                ("finetune", "plain", 0, "end-task"),
                ("static", "plain", 0, "none"),
                ("aang, dev gradient kept", "fused", 10**9, "none"),
                ("aang", "fused", 0, "none"),
                ("aang", "looped", 0, "none"),
            )
        ]
    found += [
        {
            "group": "size of the space",
            "method": "aang",
            "engine": "fused",
            "objectives": 0,
            "rows": rows,
            "space": space,
            "every": 0,
            "budget": "none",
        }
        for space in ("td", "td+ed", str(HERE / "many.toml"))
    ]
    return found


def cases_per_objective(objectives: list[int], each: int) -> list[dict]:
    """The same number of rows for every objective: both engines do more work with more objectives."""
    return [
        {
            "group": f"{each} rows each, {k} a step",
            "method": "aang",
            "engine": engine,
            "objectives": k,
            "rows": each * k,
            "space": "td",
            "every": 0,
            "budget": "none",
            "equal": True,
        }
        for k in objectives
        for engine in ("fused", "looped")
    ]


def build(case: dict, task: str, model: str, end_task_rows: int):
    """A session of this case, and its batches in preparation."""
    from aang_core.config.settings import RunConfig
    from aang_core.processes import Processes
    from aang_core.registry.registry import load_registry
    from aang_core.train.resolve import bind_objectives, load_backbone, resolve
    from aang_core.train.session import build_session
    from aang_core.train.step import Preparation

    method = case["method"].split(",")[0]
    meta = {"objectives_per_step": case["objectives"] or "all"}
    if case["engine"] != "plain":
        meta["engine"] = case["engine"]
    if method == "aang":
        meta["rule"] = "aang"
    if case["every"]:
        meta["dev_gradient_every"] = case["every"]
    if case.get("equal"):
        meta["row_shares"] = "equal"
    training = {
        "end_task_rows": end_task_rows,
        "auxiliary_rows": case["rows"],
        "row_budget": case["budget"],
    }
    config = RunConfig.from_mapping(
        {
            "task": task,
            "model": model,
            "space": case["space"],
            "method": method,
            "training": training,
            "meta": meta,
        }
    )
    resolved = resolve(config, load_registry())
    backbone = load_backbone(resolved, 0)
    with tempfile.TemporaryDirectory() as cache:
        objectives = bind_objectives(resolved, resolved.task, backbone, 0, Path(cache))
    session = build_session(config, 0, resolved.task, backbone, objectives, Processes())
    phase = "end-task" if method == "finetune" else "joint"
    return session, Preparation(session, phase, 100)


def work(case: dict, task: str, model: str, end_task_rows: int, pipe) -> None:
    """Answer ``step``, ``profile`` and ``end`` until the end."""
    root = case["checkout"]
    sys.path[:0] = [str(root), str(root / "plugins"), str(root / "cli")]
    from aang_core.train.step import train_step

    try:
        from aang_core.machine import kept_pages
    except ImportError:  # an older checkout
        kept_pages = contextlib.nullcontext
    with kept_pages():
        answer_orders(*build(case, task, model, end_task_rows), train_step, pipe)


def answer_orders(session, preparation, train_step, pipe) -> None:
    """The steps and profiles that are asked for, until the end."""
    pipe.send(len(session.factors.ids))
    steps = itertools.count()

    def one_step():
        return train_step(session, preparation, next(steps), 10**6)

    while (order := pipe.recv()) != "end":
        cpu, wall = time.process_time(), time.perf_counter()
        if order == "profile":
            pipe.send({"gemm_share": profiled(one_step)})
        else:
            record = one_step()
            pipe.send(
                {
                    "cpu": time.process_time() - cpu,
                    "wall": time.perf_counter() - wall,
                    "tokens": record.tokens,
                }
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    preparation.close()
    pipe.send({"peak_memory_mib": peak})


def profiled(step) -> float:
    """The share of matrix products and attention in a step's own CPU time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    events = [(e.key, e.self_cpu_time_total) for e in found.key_averages()]
    products = sum(t for key, t in events if any(name in key for name in GEMM))
    return products / sum(t for _, t in events)


def measure(group: list[dict], args: argparse.Namespace) -> list[dict]:
    """Run the cases of one group in turns."""
    context = mp.get_context("spawn")
    workers = []
    for case in group:
        ours, theirs = context.Pipe()
        process = context.Process(
            target=work, args=(case, args.task, args.model, args.end_task_rows, theirs), daemon=True
        )
        process.start()
        theirs.close()  # so that a worker that dies is an end of file here, not a wait for ever
        workers.append((process, ours))
        case["space_size"] = ours.recv()
        print(f"  ready: {case['method']} ({case['engine']})", file=sys.stderr)
    answers: list[list[dict]] = [[] for _ in group]
    for turn in range(args.warmup + args.steps):
        for (_, pipe), own in zip(workers, answers, strict=True):
            pipe.send("step")
            answer = pipe.recv()
            if turn >= args.warmup:
                own.append(answer)
    found = []
    for case, (process, pipe), own in zip(group, workers, answers, strict=True):
        pipe.send("profile")
        share = pipe.recv()["gemm_share"]
        pipe.send("end")
        peak = pipe.recv()["peak_memory_mib"]
        process.join()
        own = windows(own)
        tokens = statistics.median(a["tokens"] for a in own)
        found.append(
            {
                **{
                    k: case[k]
                    for k in ("group", "method", "engine", "objectives", "rows", "space_size")
                },
                "space": Path(case["space"]).stem,
                "checkout": "/".join(case["checkout"].parts[-2:]),
                "objectives": case["objectives"] or case["space_size"],
                "tokens": tokens,
                "cpu_s": statistics.median(a["cpu"] for a in own),
                "wall_s": statistics.median(a["wall"] for a in own),
                "cpu_us_per_token": statistics.median(a["cpu"] / a["tokens"] for a in own) * 1e6,
                "peak_memory_mib": peak,
                "gemm_share": share,
            }
        )
    return found


def windows(answers: list[dict]) -> list[dict]:
    """Means over `WINDOW` steps on end: a fresh dev gradient and a kept one in each, where they take turns."""
    groups = [answers[i : i + WINDOW] for i in range(0, len(answers), WINDOW)]
    return [{key: statistics.fmean(a[key] for a in group) for key in group[0]} for group in groups]


def table(rows: list[dict]) -> str:
    """Markdown, group by group; ratios to the group's ``static``, or to its first case."""
    lines, last = [], ""
    beside = len({row["checkout"] for row in rows}) > 1
    for row in rows:
        if row["group"] != last:
            last = row["group"]
            members = [r for r in rows if r["group"] == last]
            base = next((r for r in members if r["method"] == "static"), members[0])
            lines += [
                f"\n**{last}** ({base['tokens']:.0f} positions a step)\n",
                f"| method | engine | {'checkout | ' * beside}objectives | CPU s | wall s | × CPU | MiB | products |",
                f"|---|---|{'---|' * beside}--:|--:|--:|--:|--:|--:|",
            ]
        ratio = row["cpu_us_per_token"] / base["cpu_us_per_token"]
        lines.append(
            f"| {row['method']} ({row['space']}) | {row['engine']} | "
            f"{(row['checkout'] + ' | ') * beside}{row['objectives']} | "
            f"{row['cpu_s']:.2f} | {row['wall_s']:.2f} | {ratio:.2f} | {row['peak_memory_mib']:.0f} | "
            f"{row['gemm_share']:.0%} |"
        )
    return "\n".join(lines)


def checkouts(beside: Path | None) -> list[Path]:
    """This file's, and the other one before it."""
    return [root.resolve() for root in (beside, HERE.parent) if root is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="sample")
    parser.add_argument("--model", default="bundled:minilm")
    parser.add_argument("--objectives", type=int, nargs="+", default=[3, 6, 12, 24])
    parser.add_argument("--end-task-rows", type=int, default=32)
    parser.add_argument("--rows", type=int, default=64, help="auxiliary rows of a step")
    parser.add_argument("--each", type=int, default=8, help="rows per objective in the second part")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each case")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--only", default="", help="only groups whose title holds this")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--methods", nargs="+", help="only these methods")
    parser.add_argument("--beside", type=Path, help="each case with this checkout's packages too")
    args = parser.parse_args()
    # those that wait leave the cores to the one at work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parts = {
        "cases": cases(args.objectives, args.rows),
        "cases_per_objective": cases_per_objective(args.objectives, args.each),
    }
    results = {}
    for name, planned in parts.items():
        results[name] = []
        planned = [c for c in planned if not args.methods or c["method"] in args.methods]
        planned = [{**c, "checkout": root} for c in planned for root in checkouts(args.beside)]
        for group in dict.fromkeys(c["group"] for c in planned if args.only in c["group"]):
            print(group, file=sys.stderr)
            results[name] += measure([c for c in planned if c["group"] == group], args)
    if args.json:
        rows = [row for part in results.values() for row in part]
        tokens = statistics.median(row["tokens"] for row in rows)
        print(json.dumps({"tokens": tokens, **results}, indent=1))
    else:
        print("## Total rows fixed", table(results["cases"]), sep="\n")
        print("\n## Rows per objective fixed", table(results["cases_per_objective"]), sep="\n")


if __name__ == "__main__":
    main()
