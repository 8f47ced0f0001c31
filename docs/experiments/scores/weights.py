"""The weights that a study's rules have learned: collected from its sweeps, and how far seeds agree on them.

    python docs/experiments/scores/weights.py docs/experiments/scores/weights-td.csv [SWEEP ...]

adds a row for each finished trial whose rule learns and that FILE does not hold yet, a column for each objective, and
prints the table of docs/weighting.md: of every rule Spearman's rank correlation between the last weights of two seeds,
the mean over all pairs of seeds of a task, and its mean over tasks with a 95 % interval over these (Student's t).
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scipy.stats import t
from scores import TASKS, markdown, read, write

from aang_core.rundir.report import weights_agreement
from aang_core.study.sweeps.gains import read_sweeps

APART = ("task", "seed", "run")
UNLEARNED = ("equal", "fork-merge")
"""Rules that leave the objectives' weights equal."""

LABELS = "/end-task"
"""How an objective ends that predicts the label itself."""


def learned(sweeps: Sequence[Path]) -> Iterator[dict[str, str]]:
    """A row for each finished trial that learned weights.

    :raises RunError: as `gains.read_sweeps`.
    """
    for task, methods in read_sweeps(sweeps).items():
        for name, method in methods.items():
            for seed in method.run.report["seeds"] if method.run else ():
                weights = seed["weights"].get("objectives", {})
                if weights and name not in UNLEARNED:
                    row = {"task": task, "seed": str(seed["seed"]), "run": name}
                    yield {**row, **{id_: f"{value:.6g}" for id_, value in weights.items()}}


def by_task(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Run → task → the weights of each seed."""
    found: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        weights = {name: float(row[name]) for name in row if name not in APART and row[name]}
        found[row["run"]][row["task"]].append(weights)
    return found


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Markdown, the best agreement first; then how far seeds agree among those objectives that predict the label
    itself, and the mean share of the heaviest objective.
    """
    known: dict[str, tuple[float, list[str]]] = {}
    for run, tasks in by_task(rows).items():
        agreed = agreements(run, tasks)
        if len(agreed) < 2:
            continue
        labels = {
            task: [{name: w[name] for name in w if name.endswith(LABELS)} for w in each]
            for task, each in tasks.items()
        }
        heaviest = [max(w.values()) / sum(w.values()) for each in tasks.values() for w in each]
        cells = [f"{agreed[task]:+.2f}" if task in agreed else "" for task in TASKS]
        cells += [_mean_said(agreed), _mean_said(agreements(run, labels))]
        cells += [f"{statistics.mean(heaviest):.2f}", str(sum(map(len, tasks.values())))]
        known[run] = statistics.mean(agreed.values()), cells
    head = [*TASKS.values(), "mean, 95 %", "of labels", "heaviest", "runs"]
    ordered = sorted(known, key=lambda run: -known[run][0])
    return markdown({"ρ between seeds": head, **{run: known[run][1] for run in ordered}})


def agreements(run: str, tasks: Mapping[str, list[dict[str, float]]]) -> dict[str, float]:
    """By task, where two seeds have weights that differ."""
    found = {task: weights_agreement(run, tasks[task]) for task in TASKS if task in tasks}
    return {task: value for task, value in found.items() if value is not None}


def _mean_said(by_task: Mapping[str, float]) -> str:
    values = list(by_task.values())
    if len(values) < 2:
        return ""
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.mean(values)
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("sweeps", type=Path, nargs="*")
    args = parser.parse_args()
    rows = read(args.file) if args.file.exists() else []
    known = {tuple(row[name] for name in APART) for row in rows}
    new = [row for row in learned(args.sweeps) if tuple(map(row.get, APART)) not in known]
    if new:
        rows = sorted(
            [*rows, *new], key=lambda r: (r["run"], list(TASKS).index(r["task"]), r["seed"])
        )
        write(args.file, rows)
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
