"""Print the lines and files of every folder of Python code: ``python docs/house.py``."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("aang_core", "plugins", "cli", "docs", "benchmarks", "tests")


def main() -> None:
    """A line a folder, and the sums with and without the tests."""
    total = {"without tests": 0, "tests": 0}
    for part in PARTS:
        for folder in sorted({path.parent for path in (ROOT / part).rglob("*.py")}):
            files = list(folder.glob("*.py"))
            lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
            total["tests" if part == "tests" else "without tests"] += lines
            print(f"{lines:7,} lines {len(files):4} files  {folder.relative_to(ROOT)}")
    for name, lines in total.items():
        print(f"{lines:7,} lines in all, {name}")


if __name__ == "__main__":
    main()
