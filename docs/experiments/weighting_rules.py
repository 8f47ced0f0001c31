"""What weighting-rules.csv says of each rule: the tables of docs/weighting.md.

    python docs/experiments/weighting_rules.py [--scores FILE] [--split dev] [--plots FOLDER]

A gain is the mean over tasks of the mean difference over the seeds that both runs have, in points of accuracy (of
macro-F1 on ACL-ARC). Its interval holds the tasks fixed: differences between seeds have one variance s², estimated
within tasks. The mean over T tasks with n_t seeds each has variance s² Σ 1 / n_t / T², and Σ (n_t − 1) degrees of
freedom.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from scipy.stats import t

from aang_core.analysis.page.plots import Plot, write_plots
from aang_core.study.sweeps.gains import OWN
from aang_core.study.sweeps.gains_figure import gains_plot

TASKS = {
    "trec": "`trec`",
    "sst2": "`sst2`",
    "banking": "77 intents",
    "sample-all": "`sample-all`",
    "acl-arc": "ACL-ARC",
    "chemprot": "ChemProt",
}
"""By their names in the file, in the order of the columns."""

Scores = Mapping[str, Mapping[tuple[str, int], Mapping[str, str]]]
"""Run → (task, seed) → row."""


def read(path: Path) -> dict[str, Scores]:
    """The scores of each space."""
    found: dict[str, dict[str, dict[tuple[str, int], dict[str, str]]]] = {}
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            place = found.setdefault(row["space"], {}).setdefault(row["run"], {})
            place[row["task"], int(row["seed"])] = row
    return dict(found)


def differences(scores: Scores, run: str, baseline: str, split: str) -> dict[str, list[float]]:
    """By task, in points, of the seeds that both have."""
    found = defaultdict(list)
    for (task, seed), row in sorted(scores[run].items()):
        if (task, seed) in scores[baseline]:
            other = scores[baseline][task, seed]
            metric = f"{split}_f1" if task == "acl-arc" else f"{split}_accuracy"
            found[task].append(100 * (float(row[metric]) - float(other[metric])))
    return {task: found[task] for task in TASKS if task in found}


def spread(by_task: Mapping[str, Sequence[float]]) -> float:
    """Half the width of the 95 % interval of a single difference; NaN where no task has two seeds."""
    freedom = sum(len(values) - 1 for values in by_task.values())
    if freedom == 0:
        return math.nan
    squares = sum(
        (value - statistics.mean(values)) ** 2 for values in by_task.values() for value in values
    )
    return float(t.ppf(0.975, freedom)) * math.sqrt(squares / freedom)


def mean_and_interval(by_task: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """The mean over tasks, and half the width of its 95 % interval; NaN where no task has two seeds."""
    mean = statistics.mean(statistics.mean(values) for values in by_task.values())
    inverse = sum(1 / len(values) for values in by_task.values())
    return mean, spread(by_task) * math.sqrt(inverse) / len(by_task)


def said(by_task: Mapping[str, Sequence[float]]) -> str:
    """``+0.6 (-0.5 to +1.6)``."""
    mean, half = mean_and_interval(by_task)
    return (
        f"{mean:+.1f}"
        if math.isnan(half)
        else f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"
    )


def cost(scores: Scores, run: str) -> float:
    """CPU-seconds over those of equal weights, on the same tasks and seeds."""
    both = scores[run].keys() & scores["equal"].keys()
    own, equal = (sum(float(scores[r][k]["cpu_seconds"]) for k in both) for r in (run, "equal"))
    return own / equal


def all_gains(scores: Scores, split: str) -> dict[str, dict[str, list[float]]]:
    """Of every other run the differences from equal weights."""
    return {run: differences(scores, run, "equal", split) for run in scores if run != "equal"}


def table(scores: Scores, split: str) -> list[str]:
    """Markdown, the best mean first."""
    gains = all_gains(scores, split)
    columns = [task for task in TASKS if any(task in by_task for by_task in gains.values())]
    named = " | ".join(TASKS[task] for task in columns)
    lines = [
        f"| over equal weights | {named} | mean, 95 % | over `aang` | pairs | CPU |",
        f"|---|{'--:|' * (len(columns) + 4)}",
    ]
    for run in sorted(gains, key=lambda run: -mean_and_interval(gains[run])[0]):
        cells = [
            f"{statistics.mean(gains[run][c]):+.1f}" if c in gains[run] else "" for c in columns
        ]
        over = "" if run == "aang" else said(differences(scores, run, "aang", split))
        pairs = sum(map(len, gains[run].values()))
        lines.append(
            f"| {run} | {' | '.join(cells)} | {said(gains[run])} | {over} | {pairs} | {cost(scores, run):.2f} × |"
        )
    return lines


def picture(scores: Scores, split: str) -> Plot:
    """Every rule that ran on all tasks, task by task and on the mean."""
    gains = all_gains(scores, split)
    full = {run: found for run, found in gains.items() if len(found) == len(TASKS)}

    def mark(mean: float, half: float) -> dict[str, dict[str, object]]:
        ends = None if math.isnan(half) else [(mean - half) / 100, (mean + half) / 100]
        figures = {"delta": mean / 100, "interval": ends, "interval_tasks": None, "p_holm": None}
        return {OWN: figures}

    methods = [
        {"method": run, "tasks": list(found), "metrics": mark(*mean_and_interval(found))}
        for run, found in full.items()
    ]
    tasks = [
        {
            "task": TASKS[task].strip("`"),
            "metric": "f1" if task == "acl-arc" else "accuracy",
            "baseline": "equal",
            "method": run,
            "metrics": mark(
                statistics.mean(found[task]), spread(found) / math.sqrt(len(found[task]))
            ),
        }
        for task in TASKS
        for run, found in full.items()
    ]
    return gains_plot({"methods": methods, "tasks": tasks, "baselines": ["equal"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scores", type=Path, default=Path(__file__).with_name("weighting-rules.csv")
    )
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--plots", type=Path, help="the picture of td into this folder")
    args = parser.parse_args()
    spaces = read(args.scores)
    for space, scores in spaces.items():
        print(f"{space}\n", *table(scores, args.split), sep="\n", end="\n\n")
    if args.plots:
        write_plots([picture(spaces["td"], args.split)], args.plots)


if __name__ == "__main__":
    main()
