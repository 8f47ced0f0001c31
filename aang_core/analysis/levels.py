"""Classes whose names are paths, such as ``hardware/printer/jam``: how often an answer is right down to each level.

A separator is recognised, not set: it is one where every class name has the same number of parts, at least two, and
some classes share their first part. Everything else counts as flat names.
"""

from __future__ import annotations

from collections.abc import Sequence

SEPARATORS = (" > ", "/", "::", "|")


def separator_of(names: Sequence[str]) -> str:
    """The separator of the levels of these classes; empty where they have none."""
    for separator in SEPARATORS:
        paths = [name.split(separator) for name in names]
        depths = {len(path) for path in paths}
        tops = {path[0] for path in paths}
        if len(depths) == 1 and depths != {1} and 1 < len(tops) < len(names):
            return separator
    return ""


def level_accuracies(answers: Sequence[tuple[str, str]], separator: str) -> list[float]:
    """Accuracy when only the first part of the names counts, the first two, and so on to all of them.

    :param answers: (true, answered) class of each row, at least one.
    """
    depth = len(answers[0][0].split(separator))
    pairs = [(gold.split(separator), label.split(separator)) for gold, label in answers]
    return [
        sum(gold[:level] == label[:level] for gold, label in pairs) / len(pairs)
        for level in range(1, depth + 1)
    ]


def said(runs: Sequence[Sequence[tuple[str, str]]]) -> str:
    """For people: the accuracy to each level, the mean over seeds; empty where the classes have no levels.

    :param runs: the answers of each seed.
    """
    if not runs or not all(runs):
        return ""
    separator = separator_of(sorted({name for run in runs for pair in run for name in pair}))
    if not separator:
        return ""
    each = [level_accuracies(run, separator) for run in runs]
    means = [sum(level) / len(each) for level in zip(*each, strict=True)]
    parts = ", ".join(f"level {number}: {mean:.4f}" for number, mean in enumerate(means, 1))
    return f"accuracy down to each level of the classes (parted by {separator.strip()!r}): {parts}"
