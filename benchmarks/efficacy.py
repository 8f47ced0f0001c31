"""Is the gain real? Runs a study's settings over its seeds, one after another, and prints who scored what.

    python benchmarks/efficacy.py benchmarks/screening.toml --out runs/screening
    python benchmarks/efficacy.py benchmarks/screening.toml --out runs/screening --table

Resumable: a finished run is kept, a broken one goes on, so the same command continues a study. While it screens, test
scores are not printed: settings are chosen on dev, and ``--test`` is for the confirmation with other seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import tomllib
from pathlib import Path
from typing import Any


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, table by table."""
    out = dict(base)
    for key, value in changes.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


def planned(spec: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """(name, seed, settings) of every run, seeds outermost so that an early stop leaves whole pairs."""
    return [
        (name, seed, {**merged(spec["base"], changes), "seeds": [seed]})
        for seed in spec["seeds"]
        for name, changes in spec["settings"].items()
    ]


def carry_out(spec: dict[str, Any], out: Path) -> None:
    """Run what is not finished."""
    from aang_core import run

    runs = planned(spec)
    for number, (name, seed, settings) in enumerate(runs, 1):
        place = out / name / f"seed-{seed}"
        if (place / "report.json").exists():
            continue
        started = time.process_time()
        resume = (place / "config.toml").exists()
        if resume:
            run(out=place, resume=True)
        else:
            run(out=place, **settings)
        spent = time.process_time() - started
        print(f"{number}/{len(runs)} {name}, seed {seed}: {spent:.0f} CPU-seconds", file=sys.stderr)


def results(spec: dict[str, Any], out: Path, split: str) -> list[dict[str, Any]]:
    """A row for each setting with at least one finished seed."""
    rows = []
    for name in spec["settings"]:
        places = [out / name / f"seed-{seed}" / "report.json" for seed in spec["seeds"]]
        reports = [json.loads(p.read_text(encoding="utf-8")) for p in places if p.exists()]
        if not reports:
            continue
        seeds = [report["seeds"][0] for report in reports]
        row: dict[str, Any] = {"setting": name, "done": f"{len(seeds)} of {len(spec['seeds'])}"}
        for metric in seeds[0][split]:
            values = [seed[split][metric] for seed in seeds]
            row[metric] = statistics.fmean(values)
            row[f"{metric} by seed"] = values
        row["tokens"] = statistics.fmean(seed["cost"]["tokens"] for seed in seeds)
        row["CPU s"] = statistics.fmean(seed["cost"]["cpu_seconds"] for seed in seeds)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], split: str) -> str:
    """Markdown."""
    lines = [
        f"| setting | seeds | {split} accuracy | by seed | {split} macro-F1 | by seed | tokens | CPU s |",
        "|---|---|--:|---|--:|---|--:|--:|",
    ]
    for row in rows:
        cells = [row["setting"], row["done"]]
        for metric in ("accuracy", "f1"):
            cells.append(f"{100 * row[metric]:.1f}")
            cells.append(" ".join(f"{100 * v:.1f}" for v in row[f"{metric} by seed"]))
        cells += [f"{row['tokens'] / 1e3:.0f}k", f"{row['CPU s']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="only print what is finished")
    parser.add_argument("--test", action="store_true", help="test scores in place of dev's")
    args = parser.parse_args()
    spec = tomllib.loads(args.spec.read_text(encoding="utf-8"))
    if not args.table:
        carry_out(spec, args.out)
    split = "test" if args.test else "dev"
    print(table(results(spec, args.out, split), split))


if __name__ == "__main__":
    main()
