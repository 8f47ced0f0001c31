"""What is a small dev worth for choosing a checkpoint? Recorded trainings, and small devs drawn from one large one.

    python benchmarks/dev_choice.py record --task ../shared/data/few/trec --train-rows 100 --seed 40 --out recorded
    python benchmarks/dev_choice.py judge --dev-rows 100 recorded/*.npz

``record`` trains three recipes (fine-tuning from a fresh last layer, from a probe, and ``setfit``) and keeps the
logits of every dev text at every evaluation. ``judge`` draws small devs from these texts, lets each choose a
checkpoint by several rules, and scores the choice on the other texts. Test is never read.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

SETTINGS = {
    "end_task_rows": 16,
    "auxiliary_rows": 32,
    "max_steps": 120,
    "eval_every": 20,
    "max_length": 96,
    "final_epochs": 0,
    "lr": 1e-4,
    "precision": "auto",
    "refit": "none",
}
ALONE = {**SETTINGS, "row_budget": "end-task"}
PROBE = {"start": "probe", "finish": "none"}
RECIPES = {
    "finetune": {"method": "finetune", "training": ALONE},
    "finetune-from-probe": {
        "method": "finetune",
        "training": {**ALONE, "pooling": "mean"},
        "heads": PROBE,
    },
    "setfit": {"space": "setfit", "training": SETTINGS, "heads": PROBE},
}


def record(arguments: argparse.Namespace) -> None:
    """Train each recipe with each seed; a file that is there is left alone."""
    import torch

    import aang_core as aang

    class Recorder(aang.Callback):
        def __init__(self):
            self.steps, self.logits = [], []

        def on_evaluation(self, session, progress):
            with session.engine.autocast():
                logits = torch.stack(session.predict(session.stopping))
            self.steps.append(progress.done)
            self.logits.append(logits.numpy())
            self.labels = np.array([row.label for row in session.stopping])

    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seed:
        for name, recipe in RECIPES.items():
            trained = f"{Path(arguments.task).name}-{seed}-{name}-{arguments.steps}-steps"
            file = arguments.out / f"{trained}.npz"
            if file.exists():
                continue
            recorder, run = Recorder(), file.with_suffix("")
            training = {**recipe["training"], "max_steps": arguments.steps}
            aang.run(
                task=arguments.task,
                train_rows=arguments.train_rows,
                dev_rows=arguments.dev_rows,
                seeds=[seed],
                out=run,
                callbacks=recorder,
                **{**recipe, "training": training},
            )
            found = {"steps": recorder.steps, "logits": np.stack(recorder.logits)}
            np.savez_compressed(file, **found, labels=recorder.labels)
            shutil.rmtree(run)
            print(file, ", ".join(f"{s:.3f}" for s in correct(file).mean(1)))


def correct(file: Path) -> np.ndarray:
    """[S, n] whether each evaluation had each text right."""
    with np.load(file) as found:
        return (found["logits"].argmax(2) == found["labels"]).astype(float)


def probability(file: Path) -> np.ndarray:
    """[S, n] of the right class."""
    with np.load(file) as found:
        logits, labels = found["logits"].astype(np.float64), found["labels"]
    shifted = np.exp(logits - logits.max(2, keepdims=True))
    return (shifted / shifted.sum(2, keepdims=True))[:, np.arange(len(labels)), labels]


def within_error(right: np.ndarray, _: np.ndarray) -> int:
    """The last, unless the best is better by more than the standard error of their paired difference."""
    best, last = int(right.mean(1).argmax()), len(right) - 1
    lead = right[best] - right[last]
    return best if lead.mean() > lead.std(ddof=1) / len(lead) ** 0.5 else last


Rule = Callable[[np.ndarray, np.ndarray], int]
"""[S, n] right or wrong, [S, n] probabilities → the number of an evaluation."""

RULES: dict[str, Rule] = {
    "best accuracy": lambda right, _: int(right.mean(1).argmax()),
    "best accuracy, of equal ones the last": lambda right, _: (
        len(right) - 1 - int(right.mean(1)[::-1].argmax())
    ),
    "the last, unless worse by a standard error": within_error,
    "the last": lambda right, _: len(right) - 1,
    "lowest loss": lambda _, p: int((-np.log(p.clip(1e-12))).mean(1).argmin()),
}


def judge(arguments: argparse.Namespace) -> None:
    """Accuracy on the other texts, in points above that of the first rule."""
    generator = np.random.default_rng(0)
    rows = {}
    for file in arguments.files:
        right, p = correct(file), probability(file)
        if arguments.dev_rows > 0.8 * right.shape[1]:
            raise SystemExit(f"{file} has {right.shape[1]} texts; too few for --dev-rows")
        found: dict[str, list[float]] = {name: [] for name in RULES}
        for _ in range(arguments.draws):
            order = generator.permutation(right.shape[1])
            dev, others = np.split(order, [arguments.dev_rows])
            scores = right[:, others].mean(1)
            for name, rule in RULES.items():
                found[name].append(scores[rule(right[:, dev], p[:, dev])])
        means = {name: 100 * float(np.mean(scores)) for name, scores in found.items()}
        base = means["best accuracy"]
        rows[file.stem] = {name: mean - base for name, mean in means.items()}
        rows[file.stem]["the best of all"] = 100 * right.mean(1).max() - base
        print(f"{file.stem}: {base:.1f}")
    for name in [*RULES, "the best of all"]:
        gains = [row[name] for row in rows.values()]
        error = np.std(gains, ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        print(
            f"{name}: {np.mean(gains):+.2f} ± {error:.2f}, {min(gains):+.2f} to {max(gains):+.2f}"
        )


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("record")
    first.add_argument("--task", required=True)
    first.add_argument("--train-rows", type=int, default=100)
    first.add_argument("--dev-rows", type=int, default=500, help="texts that are kept, 0 for all")
    first.add_argument("--steps", type=int, default=SETTINGS["max_steps"])
    first.add_argument("--seed", type=int, nargs="+", default=[40])
    first.add_argument("--out", type=Path, required=True)
    first.set_defaults(run=record)
    second = commands.add_parser("judge")
    second.add_argument("files", type=Path, nargs="+")
    second.add_argument("--dev-rows", type=int, default=100, help="of each small dev")
    second.add_argument("--draws", type=int, default=400)
    second.set_defaults(run=judge)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
