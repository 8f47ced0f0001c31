"""An experiment's results as Markdown. In: the contents of ``results.json``. Out: text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aang_core.markdown import interval_of, markdown_table, mean_and_std, one_line, p_value_of


def markdown(results: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The tables of every target, the differences, and what has to be said beside them; scores in per cent.

    :param pictures: file names beside the text.
    """
    parts = [f"# {one_line(results['title'])}", ""]
    for name in results["targets"]:
        rows = [row for row in results["rows"] if row["target"] == name]
        if not rows:
            continue
        scores = markdown_table([score_cells(row) for row in rows])
        parts += [f"## {name}, {rows[0]['metric']}", "", scores, ""]
        if (picture := f"score-{name}.svg") in pictures:
            parts += [f"![{name}]({picture})", ""]
    if results["comparisons"]:
        differences = markdown_table([_difference_cells(each) for each in results["comparisons"]])
        parts += ["## Differences, seed by seed", "", differences, ""]
    if results["submissions"]:
        files = ", ".join(f"`{name}`" for name in results["submissions"])
        parts += [f"Predictions in the submission format of GLUE: {files}.", ""]
    parts += [f"- {remark}" for remark in results["remarks"]]
    return "\n".join(parts).rstrip() + "\n"


def score_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """One arm, for people: column → text."""
    examples = ", ".join(f"{name} {count:.0f}" for name, count in row["examples"].items())
    return {
        "arm": row["arm"],
        "N": str(row["top"] or ""),
        "seeds": str(len(row["seeds"])),
        "dev": mean_and_std(row["dev"], 1, 100),
        "test": mean_and_std(row["test"], 1, 100),
        "examples of each task": examples,
        "CPU s: selection": f"{row['selection']['cpu_seconds']:.1f}",
        "training": f"{row['training']['cpu_seconds']:.1f}",
        "total": f"{row['total']['cpu_seconds']:.1f}",
        "of full": f"{row['of_full']['cpu_seconds']:.2f}" if row["of_full"] else "",
    }


def _difference_cells(found: Mapping[str, Any]) -> dict[str, str]:
    """One comparison, in points: column → text."""
    return {
        "target": found["target"],
        "arm": found["arm"],
        "minus": found["against"],
        "split": found["split"],
        "points": f"{100 * found['delta']:+.1f}",
        "95 %": interval_of(found["interval"], 1, 100),
        "p": p_value_of(found["p_value"]),
        "seeds": str(len(found["seeds"])),
    }
