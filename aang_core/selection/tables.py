"""An experiment's results as Markdown. In: the contents of ``results.json``. Out: text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SCORES = (
    "arm",
    "N",
    "seeds",
    "dev",
    "test",
    "examples of each task",
    "CPU s: selection",
    "training",
)
_COSTS = ("total", "of full")


def markdown(results: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The tables of every target, the differences, and what has to be said beside them; scores in per cent.

    :param pictures: file names beside the text.
    """
    parts = [f"# {results['title']}", ""]
    for name in results["targets"]:
        rows = [row for row in results["rows"] if row["target"] == name]
        if not rows:
            continue
        parts += [f"## {name}, {rows[0]['metric']}", "", score_table(rows), ""]
        parts += [
            f"![{name}]({picture})\n" for picture in pictures if picture == f"score-{name}.svg"
        ]
    if results["comparisons"]:
        parts += ["## Differences, seed by seed", "", _differences(results["comparisons"]), ""]
    if results["submissions"]:
        files = ", ".join(f"`{name}`" for name in results["submissions"])
        parts += [f"Predictions in the submission format of GLUE: {files}.", ""]
    parts += [f"- {remark}" for remark in results["remarks"]]
    return "\n".join(parts).rstrip() + "\n"


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line an arm of one target."""
    cells = [score_cells(row) for row in rows]
    return table(
        [*_SCORES, *_COSTS], [[cell[name] for name in (*_SCORES, *_COSTS)] for cell in cells]
    )


def score_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """One arm, for people."""
    examples = ", ".join(f"{name} {count:.0f}" for name, count in row["examples"].items())
    return {
        "arm": row["arm"],
        "N": str(row["top"] or ""),
        "seeds": str(len(row["seeds"])),
        "dev": spread(row["dev"]),
        "test": spread(row["test"]),
        "examples of each task": examples,
        "CPU s: selection": f"{row['selection']['cpu_seconds']:.1f}",
        "training": f"{row['training']['cpu_seconds']:.1f}",
        "total": f"{row['total']['cpu_seconds']:.1f}",
        "of full": f"{row['of_full']['cpu_seconds']:.2f}" if row["of_full"] else "",
    }


def _differences(found: Sequence[Mapping[str, Any]]) -> str:
    head = ("target", "arm", "minus", "split", "points", "95 %", "p", "seeds")
    lines = []
    for each in found:
        interval = each["interval"]
        lines.append(
            [
                each["target"],
                each["arm"],
                each["against"],
                each["split"],
                f"{100 * each['delta']:+.1f}",
                f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}" if interval else "",
                "" if each["p_value"] is None else f"{each['p_value']:.3f}",
                str(len(each["seeds"])),
            ]
        )
    return table(head, lines)


def spread(found: Mapping[str, Any] | None) -> str:
    """``61.2 ± 1.4``, in per cent; nothing where there is no score."""
    if found is None:
        return ""
    deviation = "" if found["std"] is None else f" ± {100 * found['std']:.1f}"
    return f"{100 * found['mean']:.1f}{deviation}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns that are empty in every line are left out."""
    kept = [i for i in range(len(head)) if any(line[i] for line in lines)]
    every = [head, ["---"] * len(head), *lines]
    return "\n".join(
        "| " + " | ".join(line[i].replace("|", "\\|") for i in kept) + " |" for line in every
    )
