"""Do auxiliary objectives help where images have few labels? `vision-td` against fine-tuning on the task digits.

    python benchmarks/digits.py runs/digits
    python benchmarks/digits.py runs/digits --only aang --jobs 2

Five seeds of each method, each with another draw of 100 labelled images; then the comparison. The settings were chosen
on dev with another seed; docs/vision.md has them and the outcome. What has run already is not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from aang_core import RunConfig
from aang_core.study.run import run_or_resume

TRAINING: dict[str, Any] = {
    "end_task_rows": 64,
    "auxiliary_rows": 64,
    "max_steps": 200,
    "eval_every": 25,
    "final_epochs": 0,
    "lr": 1e-2,
    "head_lr": 1e-2,
}
SETTINGS: dict[str, Any] = {
    "task": "digits",
    "space": "vision-td",
    "train_rows": 100,
    "seeds": [0, 1, 2, 3, 4],
    "heads": {"policy": "per-output"},
}
METHODS: dict[str, dict[str, Any]] = {
    "finetune-equal-tokens": {
        "method": "finetune",
        "training": {**TRAINING, "row_budget": "end-task"},
    },
    "finetune-equal-labelled-rows": {"method": "finetune", "training": TRAINING},
    "static": {"method": "static", "training": TRAINING},
    "aang": {"method": "aang", "training": TRAINING},
}


def main() -> None:
    """Run what is missing, and compare what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=METHODS)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    for name in [asked.only] if asked.only else METHODS:
        out = asked.out / name
        if not (out / "report.json").is_file():
            config = RunConfig.from_mapping({**SETTINGS, **METHODS[name]})
            run_or_resume(config, out, jobs=asked.jobs)
    found = [asked.out / name for name in METHODS if (asked.out / name / "report.json").is_file()]
    command = [sys.executable, "-m", "aang_cli", "compare", *map(str, found), "--markdown"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
