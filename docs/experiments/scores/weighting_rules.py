"""What weighting-rules.csv says of each rule: the tables of docs/weighting.md.

    python docs/experiments/scores/weighting_rules.py [--scores FILE] [--split dev] [--plots FOLDER]

How gains and their intervals come about says scores.py.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path

from scores import (
    TASKS,
    Scores,
    by_run,
    differences,
    markdown,
    mean_and_interval,
    picture,
    ratio,
    read,
    said,
)

from aang_core.analysis.page.plots import write_plots

Runs = Mapping[str, Scores]


def spaces(path: Path) -> dict[str, Runs]:
    """The scores of each space."""
    rows = read(path)
    names = dict.fromkeys(row["space"] for row in rows)
    return {name: by_run([row for row in rows if row["space"] == name]) for name in names}


def all_gains(runs: Runs, split: str) -> dict[str, dict[str, list[float]]]:
    """Of every other run the differences from equal weights."""
    return {
        name: differences(run, runs["equal"], split)
        for name, run in runs.items()
        if name != "equal"
    }


def table(runs: Runs, split: str) -> list[str]:
    """Markdown, the best mean first."""
    gains = all_gains(runs, split)
    columns = [task for task in TASKS if any(task in by_task for by_task in gains.values())]
    named = [TASKS[task] for task in columns]
    rows = {"over equal weights": [*named, "mean, 95 %", "over `aang`", "pairs", "CPU"]}
    for run in sorted(gains, key=lambda run: -mean_and_interval(gains[run])[0]):
        cells = [
            f"{statistics.mean(gains[run][c]):+.1f}" if c in gains[run] else "" for c in columns
        ]
        over = "" if run == "aang" else said(differences(runs[run], runs["aang"], split))
        pairs = sum(map(len, gains[run].values()))
        cost = ratio(runs[run], runs["equal"], "cpu_seconds")
        cells += [said(gains[run]), over, str(pairs), f"{cost:.2f} ×"]
        rows[run] = cells
    return markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scores", type=Path, default=Path(__file__).with_name("weighting-rules.csv")
    )
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--plots", type=Path, help="the picture of td into this folder")
    args = parser.parse_args()
    found = spaces(args.scores)
    for space, runs in found.items():
        print(f"{space}\n", *table(runs, args.split), sep="\n", end="\n\n")
    if args.plots:
        gains = all_gains(found["td"], args.split)
        full = {run: by_task for run, by_task in gains.items() if len(by_task) == len(TASKS)}
        write_plots([picture(full, "equal")], args.plots)


if __name__ == "__main__":
    main()
