"""The first lines of the page: did the objectives help, by how much, and how sure is that?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from aang_core.analysis.answer import headline, standard_error_of
from aang_core.analysis.page.story import Story
from aang_core.markdown import interval_of


@attrs.frozen(kw_only=True)
class Answer:
    """:param number: the one that matters; `meaning`: of what. :param sentence: the answer. :param kind: ``good``,
    ``bad`` or empty. :param advice: what to do next; may be empty.
    """

    number: str
    meaning: str
    sentence: str
    kind: str = ""
    advice: str = ""


def answer_of(story: Story) -> Answer:
    """The gain over the hardest baseline; without a baseline the score and its standard error."""
    if not story.gains:
        return _score(story)
    name, row = min(story.gains, key=lambda found: found[1]["delta"])
    return _gain(story.run.name, name, row)


def _gain(own: str, name: str, row: Mapping[str, Any]) -> Answer:
    low, high = row["interval"] or (-math.inf, math.inf)
    p = row["p_value"]
    sure = (low > 0 or high < 0) and p is not None and p < 0.05
    points = f"{100 * row['delta']:+.1f}"
    what = f"{row['split']} {row['metric']}"
    if row["interval"] is None:
        sure_of = "One seed cannot say how much of this is chance: run more seeds of both."
    else:
        sure_of = (
            f"The 95 % interval over seeds goes from {interval_of(row['interval'], 1, 100)} points"
        )
        sure_of += f"; p = {p:.3f}." if p is not None else "; a test was not possible."
    if not sure:
        said = f"No clear difference: {own} has {points} points of {what} over {name}."
    elif row["delta"] > 0:
        said = f"It helped: {own} has {points} points of {what} over {name}."
    else:
        said = f"It hurt: {own} has {points} points of {what} over {name}."
    return Answer(
        number=f"{points} points",
        meaning=f"{what}, over {name}",
        sentence=f"{said} {sure_of}",
        kind=("good" if row["delta"] > 0 else "bad") if sure else "",
    )


def _score(story: Story) -> Answer:
    run = story.run
    metric = headline(run)
    scores = list(run.scores(run.split, metric).values())
    mean = sum(scores) / len(scores)
    error, causes = _standard_error(story, scores)
    what = f"{run.split} {metric}"
    said = f"The {what} is {mean:.3f}"
    if len(scores) > 1:
        said += f", the mean of {len(scores)} seeds"
    if causes:
        said += f", with a standard error of {error:.3f} by chance over {' and '.join(causes)}."
    else:
        said += "; one seed tells no standard error."
    if metric != run.report["metric"]:
        said += " Classes are unbalanced, so macro-F1 comes first."
    if story.searched:
        advice = (
            "Whether the objectives helped, one run cannot say. Run the same seeds with `--method finetune`, then "
            f"`aang report {run.name} --compare FINETUNE`."
        )
    else:
        advice = (
            "To see what objectives add, run the same seeds with a space, then "
            f"`aang report RUN --compare {run.name}`."
        )
    number = f"{mean:.3f} ± {error:.3f}" if causes else f"{mean:.3f}"
    return Answer(number=number, meaning=what, sentence=said, advice=advice)


def _standard_error(story: Story, scores: list[float]) -> tuple[float, list[str]]:
    """Of the mean score, and what it covers: seeds where there are several, test examples for accuracy and macro-F1.

    Seeds judge the same examples, so their error is no smaller over several seeds; the two are taken as independent.
    """
    squares, causes = 0.0, []
    if (count := len(scores)) > 1:
        mean = sum(scores) / count
        squares += sum((score - mean) ** 2 for score in scores) / (count - 1) / count
        causes.append("seeds")
    rows = [seed for seed in story.predictions if seed and "gold" in seed[0] and "label" in seed[0]]
    metric = headline(story.run)
    if len(rows) == count and story.run.split == "test" and metric in ("accuracy", "f1"):
        answers = [[(row["gold"], row["label"]) for row in seed] for seed in rows]
        squares += (sum(standard_error_of(seed, metric) for seed in answers) / count) ** 2
        causes.append("test examples")
    return math.sqrt(squares), causes
