"""The scores of a study: collected from its sweeps into a CSV file that outlives them, read again, compared by seed.

    python docs/experiments/scores/scores.py FILE.csv SWEEP [SWEEP ...] [--set space=td]

adds a row for each finished trial that FILE does not hold yet; ``--set`` gives what else tells its rows apart. In place
of a sweep's folder stands a file with what ``benchmarks/setfit_peer.py train`` has printed. The scripts beside this one
make the tables of the pages from such files.

A gain is the mean over tasks of the mean difference over the seeds that both runs have, in points of accuracy (of
macro-F1 on ACL-ARC, whose classes are unbalanced).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t

from aang_core.analysis.page.plots import Plot
from aang_core.analysis.statistics import holm, sign_flip_test
from aang_core.study.sweeps.gains import OWN, read_sweeps
from aang_core.study.sweeps.gains_figure import gains_plot

TASKS = {
    "trec": "`trec`",
    "sst2": "`sst2`",
    "banking": "77 intents",
    "sample-all": "`sample-all`",
    "acl-arc": "ACL-ARC",
    "chemprot": "ChemProt",
}
"""By their names in the files, in the order of the columns."""

FIGURES = (
    *("best_step", "dev_accuracy", "dev_f1", "test_accuracy", "test_f1"),
    *("tokens", "cpu_seconds"),
)
"""What a row says of a training; before these stand the columns that tell it from others."""

SETFIT = "SetFit itself"
"""The run's name for what ``benchmarks/setfit_peer.py`` has trained."""

Row = Mapping[str, str]
Scores = Mapping[tuple[str, int], Row]
"""Of one run: (task, seed) → row."""


def read(path: Path) -> list[dict[str, str]]:
    """The file's rows."""
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows that may lack some of the columns."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def by_run(rows: Sequence[Row]) -> dict[str, dict[tuple[str, int], Row]]:
    """Run → (task, seed) → row."""
    found: dict[str, dict[tuple[str, int], Row]] = {}
    for row in rows:
        found.setdefault(row["run"], {})[row["task"], int(row["seed"])] = row
    return found


def score(row: Row, split: str = "test") -> float:
    """In points of the task's metric."""
    return 100 * float(row[f"{split}_{'f1' if row['task'] == 'acl-arc' else 'accuracy'}"])


def differences(run: Scores, baseline: Scores, split: str = "test") -> dict[str, list[float]]:
    """By task, in points, of the seeds that both have."""
    found = defaultdict(list)
    for key in sorted(run.keys() & baseline.keys()):
        found[key[0]].append(score(run[key], split) - score(baseline[key], split))
    return {task: found[task] for task in TASKS if task in found}


def mean_of(by_task: Mapping[str, Sequence[float]]) -> float:
    """The mean over tasks of the means over seeds."""
    return statistics.mean(statistics.mean(values) for values in by_task.values())


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
    """The mean over tasks, and half the width of its 95 % interval; NaN where no task has two seeds.

    The interval holds the tasks fixed: differences between seeds have one variance s², estimated within tasks. The mean
    over T tasks with n_t seeds each has variance s² Σ 1 / n_t / T², and Σ (n_t − 1) degrees of freedom.
    """
    return mean_of(by_task), half_width(by_task, spread(by_task))


def half_width(by_task: Mapping[str, Sequence[float]], one: float) -> float:
    """Half the width of the mean's interval. :param one: that of a single difference (`spread`)."""
    return one * math.sqrt(sum(1 / len(values) for values in by_task.values())) / len(by_task)


def said(by_task: Mapping[str, Sequence[float]]) -> str:
    """``+0.6 (-0.5 to +1.6)``."""
    mean, half = mean_and_interval(by_task)
    if math.isnan(half):
        return f"{mean:+.1f}"
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def markdown(rows: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a table. :param rows: first column → the other cells; the first row is the head."""
    head, *lines = (f"| {' | '.join([first, *cells])} |" for first, cells in rows.items())
    width = len(next(iter(rows.values())))
    return [head, f"|---|{'--:|' * width}", *lines]


def ratio(run: Scores, baseline: Scores, figure: str) -> float:
    """A cost over the baseline's, on the same tasks and seeds."""
    both = run.keys() & baseline.keys()
    own, other = (sum(float(scores[key][figure]) for key in both) for scores in (run, baseline))
    return own / other


def p_values(gains: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float | None]:
    """By run: p of a sign-flip test of its mean gain, corrected by Holm for the number of runs."""
    raw = [
        sign_flip_test(list(by_task.values()), np.random.default_rng(0))
        for by_task in gains.values()
    ]
    return dict(zip(gains, holm(raw), strict=True))


def picture(gains: Mapping[str, Mapping[str, Sequence[float]]], baseline: str) -> Plot:
    """Task by task and on the mean. :param gains: run → task → differences; every run on the same tasks."""
    p = p_values(gains)

    def mark(
        run: str, by_task: Mapping[str, Sequence[float]], one: float
    ) -> dict[str, dict[str, object]]:
        """:param one: the spread of a single difference."""
        mean, half = mean_of(by_task), half_width(by_task, one)
        ends = None if math.isnan(half) else [(mean - half) / 100, (mean + half) / 100]
        return {
            OWN: {"delta": mean / 100, "interval": ends, "interval_tasks": None, "p_holm": p[run]}
        }

    methods = [
        {"method": run, "tasks": list(by_task), "metrics": mark(run, by_task, spread(by_task))}
        for run, by_task in gains.items()
    ]
    tasks = [
        {
            "task": TASKS[task].strip("`"),
            "metric": "f1" if task == "acl-arc" else "accuracy",
            "baseline": baseline,
            "method": run,
            "metrics": mark(run, {task: by_task[task]}, spread(by_task)),
        }
        for task in TASKS
        for run, by_task in gains.items()
        if task in by_task
    ]
    return gains_plot({"methods": methods, "tasks": tasks, "baselines": [baseline]})


def finished(sweeps: Sequence[Path]) -> Iterator[dict[str, str]]:
    """A row for each finished trial.

    :raises RunError: as `gains.read_sweeps`.
    """
    for task, methods in read_sweeps(sweeps).items():
        for name, method in methods.items():
            for seed in method.run.report["seeds"] if method.run else ():
                yield {
                    "task": task,
                    "seed": str(seed["seed"]),
                    "run": name,
                    "best_step": str(seed["best_step"]),
                    **{
                        f"{split}_{metric}": f"{seed[split][metric]:.6f}"
                        for split in ("dev", "test")
                        for metric in ("accuracy", "f1")
                    },
                    "tokens": str(seed["cost"]["tokens"]),
                    "cpu_seconds": f"{seed['cost']['cpu_seconds']:.1f}",
                }


def of_setfit(printed: Path) -> dict[str, str]:
    """The row of SetFit itself. It has no dev, and prints its scores after its progress.

    :raises SystemExit: if the training has not ended.
    """
    lines = [line for line in printed.read_text("utf-8").splitlines() if '"cpu_seconds"' in line]
    if not lines:
        raise SystemExit(f"{printed} holds no scores; expected what setfit_peer.py train prints")
    found = json.loads(lines[-1])
    return {
        "task": found["task"],
        "seed": str(found["seed"]),
        "run": SETFIT,
        **dict.fromkeys(FIGURES, ""),
        **{f"test_{metric}": f"{found['test'][metric]:.6f}" for metric in ("accuracy", "f1")},
        "tokens": str(found["tokens"]),
        "cpu_seconds": f"{found['cpu_seconds']:.1f}",
    }


def added(rows: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """`rows` with those of `new` that they do not have, in order of the tasks and seeds."""
    order = {task: place for place, task in enumerate(TASKS)}

    def place(row: Row) -> tuple[object, ...]:
        apart = [value for name, value in row.items() if name not in (*FIGURES, "task", "seed")]
        return *apart[:-1], order.get(row["task"], len(order)), int(row["seed"]), apart[-1]

    known = {place(row) for row in rows}
    return sorted([*rows, *(row for row in new if place(row) not in known)], key=place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("sources", type=Path, nargs="+", help="folders of sweeps, SetFit's output")
    parser.add_argument("--set", action="append", default=[], metavar="COLUMN=VALUE")
    args = parser.parse_args()
    apart = dict(each.split("=", 1) for each in args.set)
    before = read(args.file) if args.file.exists() else []
    sweeps = [source for source in args.sources if source.is_dir()]
    new = [*finished(sweeps), *(of_setfit(file) for file in args.sources if file not in sweeps)]
    rows = added(before, [{**apart, **row} for row in new])
    write(args.file, rows)
    print(f"{args.file}: {len(rows)} rows, {len(rows) - len(before)} of them new")


if __name__ == "__main__":
    main()
