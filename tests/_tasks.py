"""Tiny tasks on disk, and tiny runs on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOPICS = {
    "fruit": ["apple", "pear", "plum", "fig", "cherry", "melon"],
    "metal": ["iron", "zinc", "copper", "lead", "silver", "tin"],
}
TRAINING = {
    "max_steps": 4,
    "eval_every": 2,
    "end_task_rows": 4,
    "auxiliary_rows": 12,
    "final_epochs": 1,
}
"""A few steps that pass through every part of a run."""

META = {
    "rule": "aang",  # by default weights are equal, and a run passes through less
    "objectives_per_step": 3,
    "dev_rows": 4,
    "dev_head_rows": 4,
    "dev_head_steps": 2,
}


def settings(**changed: Any) -> dict[str, Any]:
    """Keywords of `aang_core.run` for a run of a second or two."""
    training = {**TRAINING, **changed.pop("training", {})}
    meta = {**META, **changed.pop("meta", {})}
    return {"model": "scratch:tiny", "space": "td", "training": training, "meta": meta, **changed}


def flags(max_steps: int = 4, **changed: Any) -> list[str]:
    """The same for the command line."""
    tables = {"training": {**TRAINING, **changed}, "meta": META}
    del tables["training"]["max_steps"]
    keys = [
        f"{table}.{key}={value}" for table, part in tables.items() for key, value in part.items()
    ]
    short = ["--model", "scratch:tiny", "--space", "td", "--max-steps", str(max_steps)]
    return [*short, *(word for key in keys for word in ("--set", key))]


def examples(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Texts of two classes, alternating, no two alike."""
    rows = []
    for i in range(start, start + count):
        label = sorted(TOPICS)[i % 2]
        words = TOPICS[label]
        text = f"The {words[i % 6]} lies beside the {words[(i // 6 + 1) % 6]} in box number {i}."
        rows.append({"text": text, "label": label})
    return rows


def write_split(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def write_task(folder: Path, shape: str = "class") -> Path:
    """A task folder: ``class``, ``pair``, ``regression``, or ``unlabelled`` (classes, but none in test)."""
    folder.mkdir(parents=True)
    for split, count, start in (("train", 24, 0), ("dev", 10, 24), ("test", 10, 34)):
        rows = examples(count, start)
        for i, row in enumerate(rows):
            if shape == "pair":
                row["text_pair"] = f"Box {i} holds something."
            if shape == "regression":
                row["label"] = i / 4
            if shape == "unlabelled" and split == "test":
                del row["label"]
        write_split(folder, split, rows)
    return folder


TIMED = {"seconds", "peak_memory_mib", "cpu_seconds"}


def untimed(value: Any) -> Any:
    """A report without what differs from one run to the next."""
    if isinstance(value, dict):
        return {key: untimed(part) for key, part in value.items() if key not in TIMED}
    return [untimed(part) for part in value] if isinstance(value, list) else value
