"""Print the lines and files of every folder of Python code, and what the lines are: ``python docs/house.py``."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("aang_core", "plugins", "cli", "docs", "benchmarks", "tests")


def kinds(text: str) -> Counter[str]:
    """How many lines of a module are what."""
    found = {
        n: "statements" if line.strip() else "blank" for n, line in enumerate(text.splitlines(), 1)
    }
    for node in ast.walk(ast.parse(text)):
        for kind, first, last in _spans(node):
            found |= {n: kind for n in range(first, last + 1) if found[n] != "blank"}
    return Counter(found.values())


def _spans(node: ast.AST) -> Iterator[tuple[str, int, int]]:
    if isinstance(node, ast.Module | ast.ClassDef):  # settings, records, schemas, constants
        for each in node.body:
            if isinstance(each, ast.Assign | ast.AnnAssign):
                yield "tables and fields", each.lineno, each.end_lineno or each.lineno
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield "imports", node.lineno, node.end_lineno or node.lineno
    elif isinstance(node, ast.FunctionDef):
        yield "signatures", node.lineno, node.body[0].lineno - 1
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield "docstrings", node.lineno, node.end_lineno or node.lineno
    elif isinstance(node, ast.Raise):
        yield "raised messages", node.lineno, node.end_lineno or node.lineno


def main() -> None:
    """A line a folder, a line a part, and the sums with and without the tests."""
    total: dict[str, Counter[str]] = {"without tests": Counter(), "tests": Counter()}
    for part in PARTS:
        own: Counter[str] = Counter()
        for folder in sorted({path.parent for path in (ROOT / part).rglob("*.py")}):
            texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
            counts = sum(map(kinds, texts), Counter())
            own += counts
            print(f"{counts.total():7,} lines {len(texts):4} files  {folder.relative_to(ROOT)}")
        total["tests" if part == "tests" else "without tests"] += own
        print(f"{own.total():7,} lines in {part}\n")
    for name, counts in total.items():
        parts = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
        print(f"{counts.total():7,} lines in all, {name}: {parts}")


if __name__ == "__main__":
    main()
