"""How well alignments from a few layers rank the objectives, beside those from the whole encoder.

    python benchmarks/alignment_layers.py --task ../shared/data/few/trec --train-rows 100 --steps 60

One run of ``aang`` on ``td`` at the defaults, with alignments from all layers. At each step it notes what each layer
adds to every objective's dot product and squared norm. From these it takes the cosines that subsets of layers would
have given, and compares them with the whole's: Spearman's rank correlation over the objectives of a step, and of their
means over the run so far (from the tenth step); whether the same objective ends on top; the same for another dev
gradient of the whole (other rows), which tells how sure the whole itself is; and by what factor the norm ratios that
``meta.balance`` uses differ (median over objectives and steps).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path

import torch

from aang_core.config.settings import LAYERS, RunConfig
from aang_core.method.gradient import tracked_layers
from aang_core.method.gradient.metagrad import chosen, layers_of
from aang_core.processes import Processes
from aang_core.registry.registry import load_registry
from aang_core.train.resolve import bind_objectives, load_backbone, resolve, seed_task
from aang_core.train.session import Session, build_session
from aang_core.train.step import Preparation, train_step

FIRST = 10
"""Means over the run so far are compared from this step on."""


def session_of(args: argparse.Namespace) -> Session:
    named = {
        "task": args.task,
        "model": "bundled:minilm",
        "space": "td",
        "train_rows": args.train_rows,
    }
    training = {"max_steps": args.steps, "max_length": args.max_length}
    meta = {"rule": "aang", "alignment_layers": "all"}
    config = RunConfig.from_mapping({**named, "training": training, "meta": meta})
    resolved = resolve(config, load_registry())
    task, backbone = seed_task(resolved, args.seed), load_backbone(resolved, args.seed)
    with tempfile.TemporaryDirectory() as cache:
        objectives = bind_objectives(resolved, task, backbone, args.seed, Path(cache))
    return build_session(config, args.seed, task, backbone, objectives, Processes())


def watched(session: Session, steps: int) -> list[dict]:
    """Train; for each step and objective the dot products and squared norms by layer ([layers] each)."""
    layers = layers_of(session.model.body())
    layer_of = {name: i for i, names in enumerate(layers) for name in names}
    tables: dict[str, torch.Tensor] = {}
    record = tracked_layers.Tape.record

    def noted(tape, name, dots, squared_norms):
        record(tape, name, dots, squared_norms)
        for table, values in (("dots", dots), ("squares", squared_norms)):
            rows = tables.setdefault(table, torch.zeros(len(layers), len(dots)))
            rows[layer_of[name]] += values.detach()

    tracked_layers.Tape.record = noted
    preparation, found = Preparation(session, "joint", steps), []
    for step in range(steps):
        tables.clear()
        record_of = train_step(session, preparation, step, steps)
        dev = session.dev_gradient
        sizes = [sum(float(dev[n].square().sum()) for n in names) for names in layers]
        ids = list(record_of.losses)
        known = [i for i, name in enumerate(ids) if name in record_of.alignments]
        found.append(
            {
                "dev": sizes,
                "ids": [ids[i] for i in known],
                "dots": tables["dots"][:, known].T.tolist(),
                "squares": tables["squares"][:, known].T.tolist(),
            }
        )
    preparation.close()
    return found


def cosines(step: dict, layers: list[int]) -> dict[str, float]:
    """By objective, without the end-task."""
    dev = sum(step["dev"][i] for i in layers)
    return {
        name: sum(dots[i] for i in layers) / (sum(squares[i] for i in layers) * dev) ** 0.5
        for name, dots, squares in zip(step["ids"], step["dots"], step["squares"], strict=True)
        if name != "end-task"
    }


def means(steps: list[dict[str, float]]) -> dict[str, float]:
    ids = dict.fromkeys(name for step in steps for name in step)
    return {name: statistics.fmean(s[name] for s in steps if name in s) for name in ids}


def spearman(left: dict[str, float], right: dict[str, float]) -> float:
    names = sorted(left.keys() & right.keys())
    ranks = [
        torch.tensor([side[n] for n in names]).argsort().argsort().float() for side in (left, right)
    ]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def running(steps: list[dict[str, float]]) -> list[dict[str, float]]:
    return [means(steps[: n + 1]) for n in range(FIRST, len(steps))]


def balance_factor(steps: list[dict], layers: list[int]) -> float:
    """The median of by what factor ``‖g_e‖ / ‖g_k‖`` differs from that over all layers."""
    factors = []
    for step in steps:
        shares = {
            name: (sum(squares[i] for i in layers) / sum(squares)) ** 0.5
            for name, squares in zip(step["ids"], step["squares"], strict=True)
        }
        factors += [abs(math.log(shares["end-task"] / own)) for own in shares.values()]
    return math.exp(statistics.median(factors))


def table(steps: list[dict]) -> str:
    layers = list(range(len(steps[0]["dev"])))
    subsets = {which: chosen(layers, which) for which in reversed(LAYERS)}
    found = {which: [cosines(step, own) for step in steps] for which, own in subsets.items()}
    whole, whole_means = found["all"], running(found["all"])
    lines = ["| layers | a step | means so far | same on top | balance |", "|---|--:|--:|---|--:|"]
    for which, own in found.items():
        own_means = running(own)
        each = statistics.fmean(map(spearman, own, whole))
        mean = statistics.fmean(map(spearman, own_means, whole_means))
        top = [max(m[-1], key=m[-1].get) for m in (own_means, whole_means)]
        factor = balance_factor(steps, subsets[which])
        lines.append(f"| {which} | {each:.2f} | {mean:.2f} | {top[0] == top[1]} | {factor:.2f} |")
    halves = [means([s for i, s in enumerate(whole) if i // 2 % 2 == part]) for part in (0, 1)]
    lines.append(
        f"\nthe whole's means over one half of the steps against the other: {spearman(*halves):.2f}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="sample")
    parser.add_argument("--train-rows", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="what each layer added, as JSON")
    args = parser.parse_args()
    steps = watched(session_of(args), args.steps)
    if args.save:
        args.save.write_text(json.dumps(steps))
    print(
        f"{args.task}, {args.train_rows or 'all'} labelled rows, seed {args.seed}\n\n{table(steps)}"
    )


if __name__ == "__main__":
    main()
