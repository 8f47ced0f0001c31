"""Tiny pools beside a tiny target, and settings for a selection of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _tasks import examples, write_split, write_task

POOLS = ("near", "pairs", "numbers", "lines.txt")


def write_pools(root: Path) -> Path:
    """A target, three labelled pools of different kinds, and a text file whose last line is empty."""
    write_task(root / "target")
    for name, start in (("near", 200), ("pairs", 300), ("numbers", 400)):
        (root / name).mkdir()
        for split, count, first in (
            ("train", 40, start),
            ("dev", 6, start + 60),
            ("test", 6, start + 70),
        ):
            rows = examples(count, first)
            for i, row in enumerate(rows):
                if name == "pairs":
                    row["text_pair"] = f"Something else lies in number {i}."
                if name == "numbers":
                    row["label"] = i / 4
            write_split(root / name, split, rows)
    lines = [f"A plain line with the number {i} and nothing else." for i in range(30)]
    (root / "lines.txt").write_text("\n".join([*lines, "", ""]), encoding="utf-8")
    return root


def settings(root: Path, selector: str = "random", **changed: Any) -> dict[str, Any]:
    """Keywords of `aang_core.select`."""
    pools = changed.pop("pools", POOLS)
    return {
        "target": str(root / "target"),
        "from_": [str(root / name) for name in pools],
        "selector": selector,
        "model": "scratch:tiny",
        "examples_per_task": 8,
        "shard_rows": 16,
        "picture_rows": 0,
        **changed,
    }
