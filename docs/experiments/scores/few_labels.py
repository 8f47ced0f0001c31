"""What few-labels.csv says: the tables and the picture of docs/results.md.

    python docs/experiments/scores/few_labels.py [--plots FOLDER]

Two comparisons, each between methods that see the same labels: those of train alone, and those of train and dev
together. The baseline is fine-tuning in the form that dev prefers on each task. How gains and their intervals come
about says scores.py; the interval "other tasks" draws tasks and seeds anew, and p is that of a sign-flip test,
corrected for the methods of both tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scores import (
    SETFIT,
    TASKS,
    Row,
    Scores,
    by_run,
    differences,
    markdown,
    mean_of,
    p_values,
    picture,
    ratio,
    read,
    said,
    score,
)

from aang_core.analysis.page.plots import write_plots
from aang_core.analysis.statistics import resampled_means

FORMS = ("finetune", "finetune, from a probe")
ALL = ", all labels"
TEMPERED = "finetune, from a tempered probe"
TABLES = {
    "train's labels": (FORMS, ("setfit", TEMPERED, "few-labels", "auto", "probe")),
    "the labels of train and dev": (
        tuple(f"{form}{ALL}" for form in FORMS),
        (f"setfit{ALL}", f"{TEMPERED}{ALL}", f"few-labels{ALL}", SETFIT),
    ),
}
"""The forms of fine-tuning that people use, and what is compared with the better one."""

STARTS = {
    "fine-tuning, a fresh layer": "finetune",
    "fine-tuning, a probe": "finetune, from a probe",
    "fine-tuning, a tempered probe": TEMPERED,
    "`setfit`, a probe": "setfit, from a probe",
    "`setfit`, a tempered probe": "setfit",
}
"""What the last layer begins with → the run."""

ORACLE = "oracle, "
"""Before a form's name: fine-tuning with the label of every training text, as many steps."""

Runs = Mapping[str, Scores]


def better(runs: Runs, forms: Sequence[str]) -> tuple[dict[tuple[str, int], Row], dict[str, str]]:
    """The form whose mean on dev is best on each task, over the seeds that all have; and which that is.

    The refit chooses nothing: with all labels the form is still judged by the dev scores of the model before.
    """
    shared = set.intersection(*(set(runs[form]) for form in forms))
    rows, chosen = {}, {}
    for task in TASKS:
        keys = [key for key in shared if key[0] == task]
        if keys:
            best = max(
                forms, key=lambda form: sum(score(runs[form][key], "dev") for key in sorted(keys))
            )
            chosen[task] = best
            rows |= {key: runs[best][key] for key in keys}
    return rows, chosen


def all_gains(runs: Runs) -> dict[str, dict[str, list[float]]]:
    """Of every method in the tables, over the fine-tuning that sees the same labels."""
    found = {}
    for forms, names in TABLES.values():
        base, _ = better(runs, forms)
        found |= {name: differences(runs[name], base) for name in names if name in runs}
    return found


def table(runs: Runs, labels: str) -> list[str]:
    """Markdown. :param labels: one of `TABLES`."""
    forms, names = TABLES[labels]
    base, _ = better(runs, forms)
    p = p_values(all_gains(runs))
    peer = runs.get(SETFIT, {}) if SETFIT in names else {}
    by_task: dict[str, list[float]] = {}
    for (task, _), row in sorted(base.items()):
        by_task.setdefault(task, []).append(score(row))
    tasks = [task for task in TASKS if task in by_task]
    columns = [*(TASKS[task] for task in tasks), "mean, 95 %", *(["over SetFit"] if peer else [])]
    columns += ["other tasks", "p", "draws", "tokens", "CPU"]
    cells = [f"{np.mean(by_task[task]):.1f}" for task in tasks]
    cells += [f"{mean_of(by_task):.1f}", *_over(base, peer), "", "", _draws(base), "", ""]
    rows = {labels: columns, "fine-tuning: score": cells}
    for name in names:
        if name not in runs:
            continue
        gains = differences(runs[name], base)
        cells = [f"{np.mean(gains[task]):+.1f}" if task in gains else "" for task in tasks]
        other = resampled_means(list(gains.values()), np.random.default_rng(0), other_tasks=True)
        low, high = np.quantile(other, [0.025, 0.975])
        cells += [said(gains), *_over(runs[name], peer), f"{low:+.1f} to {high:+.1f}"]
        cells += [f"{p[name]:.3f}" if p[name] is not None else "", _draws(runs[name])]
        cells += [f"{ratio(runs[name], base, cost):.2f} ×" for cost in ("tokens", "cpu_seconds")]
        rows[f"{name}: gain"] = cells
    return markdown(rows)


def _over(run: Scores, peer: Scores) -> list[str]:
    """The cell with its mean difference from SetFit itself; none where SetFit saw other labels."""
    if not peer:
        return []
    return ["" if run is peer else said(differences(run, peer))]


def oracle_table(runs: Runs) -> list[str]:
    """Markdown: what fine-tuning would gain from the labels that nobody has, and which share of it is reached without.

    Every row is on the draws that the oracle has. Shares are of the mean gains, not means of shares, which a task with
    little to gain would rule.
    """
    oracle, _ = better(runs, [f"{ORACLE}{form}" for form in FORMS])
    base, _ = better(runs, FORMS)
    most = differences(oracle, base)
    cells = [f"{np.mean(most[task]):+.1f}" for task in most]
    rows = {
        "gain over fine-tuning, train's labels": [*(TASKS[t] for t in most), "mean", "share"],
        "fine-tuning, every label": [*cells, f"{mean_of(most):+.1f}", ""],
    }
    both, _ = better(runs, [f"{form}{ALL}" for form in FORMS])
    reach = {"setfit": runs["setfit"], f"setfit{ALL}": runs[f"setfit{ALL}"]}
    for name, scores in {**reach, f"fine-tuning{ALL}": both}.items():
        gains = differences({key: row for key, row in scores.items() if key in oracle}, base)
        cells = [f"{np.mean(gains[task]):+.1f}" if task in gains else "" for task in most]
        reached = {task: most[task] for task in gains}
        share = mean_of(gains) / mean_of(reached)
        rows[name] = [*cells, f"{mean_of(gains):+.1f}", f"{100 * share:.0f} %"]
    return markdown(rows)


def start_table(runs: Runs) -> list[str]:
    """Markdown: scores by what the last layer begins with, over the draws that all have."""
    shared = set.intersection(*(set(runs[f"{run}{ALL}"]) for run in STARTS.values()))
    tasks = [task for task in TASKS if any(task == other for other, _ in shared)]
    named = [TASKS[task] for task in tasks]
    rows = {"what the last layer begins with": [*named, "mean", "all labels"]}
    for start, run in STARTS.items():
        means = {
            suffix: [
                np.mean([score(runs[f"{run}{suffix}"][key]) for key in shared if key[0] == task])
                for task in tasks
            ]
            for suffix in ("", ALL)
        }
        last = np.mean(means[""]), np.mean(means[ALL])
        rows[start] = [f"{mean:.1f}" for mean in (*means[""], *last)]
    return markdown(rows)


def _draws(scores: Scores) -> str:
    """How many seeds its tasks have: ``3``, or ``2 to 3``."""
    counts = [sum(task == other for other, _ in scores) for task in TASKS]
    counts = [count for count in counts if count]
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, default=Path(__file__).with_name("few-labels.csv"))
    parser.add_argument("--plots", type=Path, help="the picture into this folder")
    args = parser.parse_args()
    runs = by_run(read(args.scores))
    for labels, (forms, _) in TABLES.items():
        print(*table(runs, labels), sep="\n", end="\n\n")
        print("the baseline by dev:", better(runs, forms)[1], end="\n\n")
    for found in (oracle_table(runs), start_table(runs)):
        print(*found, sep="\n", end="\n\n")
    if args.plots:
        gains = all_gains(runs)
        full = {name: by_task for name, by_task in gains.items() if len(by_task) == len(TASKS)}
        write_plots([picture(full, "fine-tuning on the same labels")], args.plots)


if __name__ == "__main__":
    main()
