"""Is the gain real? A study: several tasks and settings over the same seeds, and who scored what.

    python benchmarks/efficacy.py benchmarks/screening.toml --data ../shared/data --out runs/screening --workers 2
    python benchmarks/efficacy.py benchmarks/confirmation.toml --data ../shared/data --out runs/confirmation --test

Resumable: a finished run is kept and a broken one goes on, so the same command continues a study; ``--table`` only
prints what is there. Settings are chosen on dev (the first command shows nothing else); ``--test`` is for the
confirmation, with other seeds. Every run lies in ``OUT/TASK/SETTING/seed-N``, and ``aang compare OUT/TASK/SETTING …``
reads it too.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import statistics
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

Spec = dict[str, Any]
Scores = dict[int, dict[str, float]]
"""Seed → metric → fraction."""


def merged(base: Spec, changes: Spec) -> Spec:
    """`changes` over `base`, table by table."""
    out = dict(base)
    for key, value in changes.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


def planned(spec: Spec, out: Path, data: str) -> Iterator[tuple[Path, Spec]]:
    """(place, settings) of every run, seeds outermost so that an early stop leaves whole comparisons."""
    for seed in spec["seeds"]:
        for task, about in spec["tasks"].items():
            for name, changes in spec["settings"].items():
                settings = merged(merged(spec["base"], about), changes)
                settings["task"] = settings["task"].format(data=data)
                yield out / task / name / f"seed-{seed}", {**settings, "seeds": [seed]}


def carry_out(place: Path, settings: Spec) -> float:
    """One run, from its beginning or from where it broke off; CPU-seconds."""
    from aang_core import RunConfig
    from aang_core.study.run import run_or_resume

    started = time.process_time()
    run_or_resume(RunConfig.from_mapping(settings), place)
    return time.process_time() - started


def carry_out_all(spec: Spec, out: Path, data: str, workers: int, only: list[str]) -> None:
    """Run what is not finished of the settings `only` (empty: all), each run in one thread of one of `workers`."""
    runs = [(p, s) for p, s in planned(spec, out, data) if not only or p.parent.name in only]
    left = [(place, s) for place, s in runs if not (place / "report.json").exists()]
    print(f"{len(runs) - len(left)} of {len(runs)} runs are finished", file=sys.stderr)
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.monotonic()
    with ProcessPoolExecutor(workers, mp.get_context("spawn")) as pool:
        futures = {pool.submit(carry_out, place, settings): place for place, settings in left}
        for number, future in enumerate(as_completed(futures), 1):
            rest = (time.monotonic() - started) / number * (len(left) - number) / 60
            print(
                f"{number}/{len(left)} {futures[future].relative_to(out)}: {future.result():.0f} CPU-seconds, "
                f"about {rest:.0f} minutes to go",
                file=sys.stderr,
                flush=True,
            )


def scores_of(reports: dict[int, Spec], split: str) -> Scores:
    """Every metric by seed; the metrics of test without the rows that stand in train, where some do."""
    return {n: r["seeds"][0][split] for n, r in reports.items()}


def guarded(search: dict[int, Spec], plain: dict[int, Spec]) -> dict[int, Spec]:
    """What ``guard`` would have kept: the plain run where it is better on dev. It costs what both cost."""
    kept = {}
    for seed in search.keys() & plain.keys():
        ours, theirs = search[seed]["seeds"][0], plain[seed]["seeds"][0]
        metric = search[seed]["metric"]
        best = theirs if theirs["dev"][metric] > ours["dev"][metric] else ours
        cost = {n: ours["cost"][n] + theirs["cost"][n] for n in ours["cost"]}
        kept[seed] = {**search[seed], "seeds": [{**best, "cost": cost}]}
    return kept


def finished(spec: Spec, out: Path) -> dict[str, dict[str, dict[int, Spec]]]:
    """Task → setting → seed → report, with what the guard would have made of the settings named in ``[guard]``."""
    from aang_core.rundir.report import read_report

    found: dict[str, dict[str, dict[int, Spec]]] = {}
    for task in spec["tasks"]:
        of_task = found.setdefault(task, {})
        for name in spec["settings"]:
            places = {n: out / task / name / f"seed-{n}" for n in spec["seeds"]}
            done = {n: read_report(p) for n, p in places.items() if (p / "report.json").exists()}
            if done:
                of_task[name] = done
        guard = spec.get("guard", {})
        for name in guard.get("settings", ()):
            if name in of_task and guard["against"] in of_task:
                of_task[f"{name}, guarded"] = guarded(of_task[name], of_task[guard["against"]])
    return found


def task_table(runs: dict[str, dict[int, Spec]], seeds: int, split: str) -> str:
    """Markdown: every setting, every seed, cost beside score."""
    lines = [
        f"| setting | seeds | {split} accuracy | by seed | {split} macro-F1 | by seed | tokens | CPU s |",
        "|---|---|--:|---|--:|---|--:|--:|",
    ]
    for name, reports in runs.items():
        scores = scores_of(reports, split)
        cells = [name, f"{len(reports)} of {seeds}"]
        for metric in ("accuracy", "f1"):
            values = [100 * scores[n][metric] for n in sorted(scores)]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells += [
                f"{statistics.fmean(values):.1f}{spread}",
                " ".join(f"{v:.1f}" for v in values),
            ]
        costs = [r["seeds"][0]["cost"] for r in reports.values()]
        cells.append(f"{statistics.fmean(c['tokens'] for c in costs) / 1e3:.0f}k")
        cells.append(f"{statistics.fmean(c['cpu_seconds'] for c in costs):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_table(found: dict[str, dict[str, dict[int, Spec]]], spec: Spec, split: str) -> str:
    """Markdown: the mean over tasks, and the difference to each baseline over the seeds that both have on all tasks."""
    import numpy as np

    from aang_core.analysis.statistics import bootstrap_interval, paired_t_test

    def mean_by_seed(name: str) -> dict[int, float]:
        tables = [scores_of(runs.get(name, {}), split) for runs in found.values()]
        common = set.intersection(*(set(table) for table in tables))
        return {n: 100 * statistics.fmean(t[n]["f1"] for t in tables) for n in sorted(common)}

    names = list(dict.fromkeys(name for runs in found.values() for name in runs))
    means = {name: mean_by_seed(name) for name in names}
    baselines = [name for name in spec.get("baselines", []) if means.get(name)]
    lines = [
        f"| setting | {split} macro-F1, mean of {len(found)} tasks | "
        + " | ".join(f"− {name}" for name in baselines)
        + " |",
        "|---|--:|" + "---|" * len(baselines),
    ]
    for name, values in means.items():
        if not values:
            continue
        cells = [name, f"{statistics.fmean(values.values()):.1f} ({len(values)} seeds)"]
        for baseline in baselines:
            both = sorted(values.keys() & means[baseline].keys())
            first, second = [means[baseline][n] for n in both], [values[n] for n in both]
            if baseline == name or len(both) < 2:
                cells.append("")
                continue
            test = paired_t_test(first, second)
            low, high = bootstrap_interval(first, second, np.random.default_rng(0))
            p_value = "" if test.p_value is None else f", p = {test.p_value:.2f}"
            cells.append(f"{test.mean:+.1f} [{low:+.1f}, {high:+.1f}]{p_value}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="../shared/data", help="where the tasks' folders lie")
    parser.add_argument("--workers", type=int, default=1, help="runs beside each other")
    parser.add_argument("--only", nargs="+", default=[], help="settings to run now; the rest later")
    parser.add_argument("--table", action="store_true", help="only print what is finished")
    parser.add_argument("--test", action="store_true", help="test scores in place of dev's")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    spec = tomllib.loads(args.spec.read_text(encoding="utf-8"))
    if not args.table:
        if unknown := sorted(set(args.only) - set(spec["settings"])):
            parser.error(
                f"{args.spec} has no settings named {unknown}; it has {list(spec['settings'])}"
            )
        carry_out_all(spec, args.out, args.data, args.workers, args.only)
    split = "test" if args.test else "dev"
    found = finished(spec, args.out)
    for task, runs in found.items():
        print(f"\n### {task}\n\n{task_table(runs, len(spec['seeds']), split)}")
    print(f"\n### Mean over tasks\n\n{mean_table(found, spec, split)}")


if __name__ == "__main__":
    main()
