"""How fast examples are scored: against plain inference of the encoder, and gradients against a plain training pass.

    python benchmarks/selection_speed.py --task ../shared/data/acl-arc --pool ../shared/data/chemprot --rows 512

Four ways over the same rows, in turns (A B C D A B C D …), so that a machine whose speed drifts slows all of them:

- inference: the encoder over rows that are tokenised already, in length order, as many together as scoring takes;
- scoring: the same rows by ``discriminator-bce``, from texts to probabilities, tokenisation included;
- training: forward and backward pass of the pool's own loss over the same rows, tokenisation included, no optimiser;
- gradient: the same rows by ``gradient``.

Medians of CPU-seconds, and what the two ratios may be: scoring at least 0.9 of inference's rows a second, gradient at
most 1.4 times training.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from aang_selectors.discriminator import sigmoids
from aang_selectors.gradient import Gradients

from aang_core.batch.packing import plain_batch
from aang_core.config.settings import RunConfig
from aang_core.randomness import evaluating
from aang_core.registry.registry import load_registry
from aang_core.selection.pools import load_pools, target_pool
from aang_core.selection.protocols import SelectionContext, Window
from aang_core.train.resolve import load_backbone, resolve


def contexts(given) -> dict[str, SelectionContext]:
    """A context for each of the two selectors, each with an encoder of its own."""
    registry = load_registry()
    training = {"max_length": given.max_length}
    config = {"task": given.task, "model": given.model, "method": "finetune", "training": training}
    base = resolve(RunConfig.from_mapping({**config, "device": given.device}), registry)
    pools = load_pools([given.pool], base.kind.reads, registry)
    found = {}
    for name in ("discriminator-bce", "gradient"):
        options = {**registry.selectors[name].record.options, **SMALL[name]}
        found[name] = SelectionContext(
            target=base.task,
            examples=target_pool(base.task, given.task),
            target_sample=range(32),
            pools=pools,
            samples=[pools[0].sample(32, seed=0)],
            options=options,
            seed=0,
            registry=registry,
            load=lambda: load_backbone(base, 0),
            batch_tokens=given.batch_tokens,
            precision=given.precision,
        )
    return found


SMALL = {
    "discriminator-bce": {"epochs": 1},
    "gradient": {"head_steps": 2, "norm_rows": 4, "dev_rows": 32},
}
"""Preparation is not measured, so it is kept short."""


def ways(given) -> dict:
    """Name → a function that goes over the rows once."""
    context = contexts(given)
    scorer, aligner = sigmoids(context["discriminator-bce"]), Gradients(context["gradient"])
    scorer.prepare()
    aligner.prepare()
    pool = context["gradient"].pools[0]
    window = Window(pool, range(min(given.rows, len(pool))))
    plain = context["discriminator-bce"]
    rows = pool.rows(plain.backbone, window.numbers)

    def inference() -> None:
        with evaluating(plain.backbone.body), torch.inference_mode(), plain.autocast():
            for batch in plain.batches(rows):
                plain.backbone.encode(plain_batch([rows[i] for i in batch]).to(plain.device))

    def training() -> None:
        losses = aligner.losses
        made = pool.rows(context["gradient"].backbone, window.numbers)
        with losses.evaluating():
            for batch in context["gradient"].batches(made):
                step = losses.batch(1, losses.piece(1, [made[i] for i in batch]))
                losses.engine.plain(step, torch.ones(1))
                losses.forget()

    return {
        "inference": inference,
        "scoring": lambda: scorer.scores(window),
        "training": training,
        "gradient": lambda: aligner.scores(window),
    }


def measured(work: dict, times: int) -> dict[str, list[float]]:
    """CPU-seconds of each way, in turns; one turn before is not counted. On a GPU, seconds."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    spent: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(times + 1):
        for name, way in work.items():
            start = clock()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                spent[name].append(clock() - start)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="sample")
    parser.add_argument("--pool", required=True)
    parser.add_argument("--model", default="bundled:minilm")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    spent = measured(ways(given), given.times)
    median = {name: statistics.median(values) for name, values in spent.items()}
    found = {
        "rows": given.rows,
        "median_seconds": median,
        "spread": {name: [min(values), max(values)] for name, values in spent.items()},
        "scoring_throughput_of_inference": median["inference"] / median["scoring"],
        "gradient_cost_of_training": median["gradient"] / median["training"],
    }
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print("| way | seconds | rows a second |")
    print("|---|---|---|")
    for name, seconds in median.items():
        print(f"| {name} | {seconds:.2f} | {given.rows / seconds:.1f} |")
    print(
        f"\nscoring: {found['scoring_throughput_of_inference']:.1%} of inference's rows a second; "
        f"gradient: {found['gradient_cost_of_training']:.2f} times a training pass"
    )


if __name__ == "__main__":
    main()
