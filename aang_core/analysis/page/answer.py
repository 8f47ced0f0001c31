"""The first lines of the page: did the objectives help, by how much, and how sure is that?"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

import attrs

from aang_core.analysis.answer import amount, standard_error_of
from aang_core.analysis.detectability import POINTS
from aang_core.analysis.page.story import Story


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
    """The gain over the hardest baseline, as ``aang run`` says it; without one the score and its standard error."""
    if story.gains:
        return _gain(*story.hardest)
    if "said" in story.kept:
        return _gain(str(story.kept["directory"]), story.kept)
    return _score(story)


def _gain(name: str, found: Mapping[str, Any]) -> Answer:
    metric = found["metric"]
    points = " points" if metric in POINTS else ""
    advice = found["next"]
    return Answer(
        number=amount(found["delta"], metric, signed=True) + points,
        meaning=f"{found['split']} {metric}, over {name}",
        sentence=found["said"] + ".",
        kind={"helped": "good", "hurt": "bad"}.get(found["verdict"], ""),
        advice=f"Next: {advice}." if advice else "",
    )


def _score(story: Story) -> Answer:
    run = story.run
    metric = run.headline
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
            "Whether the objectives helped, one run cannot say. Plain fine-tuning on the same seeds will tell: "
            f"`aang run --resume --out {shlex.quote(str(run.path))} --against finetune`."
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
    metric = story.run.headline
    if len(rows) == count and story.run.split == "test" and metric in ("accuracy", "f1"):
        answers = [[(row["gold"], row["label"]) for row in seed] for seed in rows]
        squares += (sum(standard_error_of(seed, metric) for seed in answers) / count) ** 2
        causes.append("test examples")
    return math.sqrt(squares), causes
