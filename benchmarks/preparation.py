"""What preparing a batch costs, compared with the training step that uses it.

    python benchmarks/preparation.py
    python benchmarks/preparation.py --task my_task/ --rows 64 --json

For every legal objective over the task's own texts, and over its corpus for those that need one: the CPU seconds
of drawing, transforming, laying out and giving targets to a batch, once with texts that were never drawn before
(`new`, which tokenises them) and again with texts that were (`known`, as in all but the first steps). Beside it a
forward and a backward pass of the encoder alone over a batch of so many rows, under the same kind of rule: less than
any objective's whole step, which has a head as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import attrs
import torch

from aang_core.batch.packing import fuse, prepare
from aang_core.config.settings import RunConfig
from aang_core.randomness import generator
from aang_core.registry.records import STAGES, Block, Space
from aang_core.registry.registry import load_registry
from aang_core.train.resolve import bind_objectives, load_backbone, resolve, seed_task

WARM_UP = 1


def measured(call, times: int) -> float:
    """Median CPU seconds of a call, all threads together."""
    seconds = []
    for turn in range(times + WARM_UP):
        started = time.process_time()
        call(turn)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds[WARM_UP:])


def bound(task: str, model: str):
    """The encoder, every legal objective over the task's own texts, and over its corpus those that need one."""
    registry = load_registry()
    config = RunConfig.from_mapping({"task": task, "model": model, "method": "finetune"})
    resolved = resolve(config, registry)
    lists = {stage: registry.at_stage(stage) for stage in STAGES[1:]}
    block = Block(data=("task", "in-domain"), **lists)
    space = Space(name="all", summary="", blocks=(block,), optional={"in-domain"})
    backbone = load_backbone(resolved, 0)
    resolved = attrs.evolve(resolved, space=space)
    objectives = bind_objectives(resolved, seed_task(resolved, 0), backbone, 0)
    own = {each.id.split("/")[3] for each in objectives if each.id.startswith("task/")}
    return backbone, [
        each
        for each in objectives
        if each.id.startswith("task/") or each.id.split("/")[3] not in own
    ]


def step(backbone, objective, rows: int):
    """A forward and a backward pass of the encoder over one batch."""
    batch = fuse([(0, prepare(objective, rows, generator(0, "step")))]).to(backbone.device)
    backbone.body.train()

    def call(_turn: int) -> None:
        backbone.encode(batch).states.sum().backward()
        backbone.body.zero_grad(set_to_none=True)

    return call


def rows_of(backbone, objectives, rows: int, times: int) -> list[dict]:
    """A row an objective, the dearest first."""
    steps: dict[tuple[str, ...], float] = {}
    found = []
    for objective in objectives:
        data, _, representation, _ = objective.id.split("/")
        rule = (data, representation, objective.output.layout.kind)
        if rule not in steps:
            steps[rule] = measured(step(backbone, objective, rows), 3)

        def call(turn: int, objective=objective) -> None:
            fuse([(0, prepare(objective, rows, generator(turn, "preparation")))])

        objective.source._made.clear()  # forget the texts that other objectives have drawn
        new = measured(call, times)
        known = measured(call, times)
        found.append(
            {
                "objective": objective.id,
                "new_ms": 1e3 * new,
                "known_ms": 1e3 * known,
                "step_ms": 1e3 * steps[rule],
                "new_share": new / steps[rule],
                "known_share": known / steps[rule],
            }
        )
    return sorted(found, key=lambda row: -row["new_share"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="sample")
    parser.add_argument("--model", default="bundled:minilm")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--show", type=int, default=12, help="how many of the dearest to print")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone, objectives = bound(given.task, given.model)
    found = rows_of(backbone, objectives, given.rows, given.times)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print("| objective | new texts | known texts | encoder step | new | known |")
    print("|---|---|---|---|---|---|")
    for row in found[: given.show]:
        print(
            f"| {row['objective']} | {row['new_ms']:.1f} ms | {row['known_ms']:.1f} ms "
            f"| {row['step_ms']:.0f} ms | {row['new_share']:.2%} | {row['known_share']:.2%} |"
        )
    shares = [row["new_share"] for row in found]
    print(
        f"\n{len(found)} objectives, {given.rows} rows each: at most {max(shares):.2%} of a step with new"
    )
    print(f"texts, {max(row['known_share'] for row in found):.2%} with known ones.")


if __name__ == "__main__":
    main()
