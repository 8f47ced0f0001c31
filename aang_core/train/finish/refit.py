"""Train once more on all labels, with the length and the weights that a search has found; dev chooses nothing any more.

``training.refit = "all"`` does it with train and dev of a seed, ``aang refit`` the same for a run that is finished, and
``aang run --folds`` with the rows of all folds. The model has then seen dev, so no score on dev estimates it; the
search's is that of the model before.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.settings import AUTO, META_METHODS, WITHOUT_OBJECTIVES, RunConfig
from aang_core.data.metrics import standard_error
from aang_core.rundir.recipe import write_recipe
from aang_core.train.resolve import ResolvedRun, seed_task
from aang_core.train.trainer import Trainer

REFIT = "refit"
"""The folder of this training in a seed's."""

_RECIPE = "weights.json"


def refits(config: RunConfig) -> bool:
    """Whether a seed is trained once more on train and dev."""
    return config.training.refit == "all"


def length_of(config: RunConfig, best_steps: Sequence[int]) -> int:
    """The median of the best steps of finished trainings (the higher of two), without those of a first phase or of a
    final fine-tuning; 0 where dev preferred the probe that they began with.
    """
    first = config.training.pretrain_steps if config.method == "pretrain-finetune" else 0
    median = max(0, int(statistics.median_high(step - first for step in best_steps)))
    return median if config.training.epochs else min(median, config.training.max_steps)


def longest_as_good(metric: str, evaluations: Sequence[Mapping[str, float]], error: float) -> int:
    """The last step at which dev scored as well as at best, or worse by no more than its standard error.

    Some hundred dev texts cannot tell the best checkpoint from the last: chosen by them, a training on twice as many
    labels would often end after a sixth of the steps. Judged on other dev texts, the last checkpoint is as good as the
    chosen one or better, unless it is worse by more than such an error (docs/results.md).

    :param error: as a fraction, as the scores are. :returns: 0 where no score is finite.
    """
    scored = [each for each in evaluations if math.isfinite(each[metric])]
    best = max((each[metric] for each in scored), default=math.inf)
    return int(max((each["step"] for each in scored if each[metric] >= best - error), default=0))


def with_numbers(evaluations: Iterable[Mapping[str, float | None]]) -> list[dict[str, float]]:
    """Evaluations as a report has them, with NaN for null."""
    return [
        {name: math.nan if value is None else value for name, value in each.items()}
        for each in evaluations
    ]


def ends_with_probe(
    config: RunConfig, metric: str, evaluations: Sequence[Mapping[str, float]]
) -> bool:
    """Whether a finished training kept the probe that ``heads.finish`` fits, which is judged last."""
    *others, last = (each[metric] for each in evaluations)
    if config.heads.finish != "probe":
        return config.heads.finish == "always"
    return math.isfinite(last) and not any(other >= last for other in others)


def settled(
    config: RunConfig, steps: int, weights: Mapping[str, Any], directory: Path, probe: bool
) -> RunConfig:
    """The configuration that trains so many steps with fixed weights, and reads dev once, at the end.

    :param steps: as `length_of` says; without any it fits a probe on the encoder as it comes.
    :param probe: whether its last layer is a probe on the trained features, as dev has chosen.
    :param weights: ``objectives`` and ``end_task`` that a search has learned; written into `directory`, if the method
        learns any.
    """
    if steps == 0:
        config = attrs.evolve(config, method="probe")
    most = max(steps, 1)
    training = attrs.evolve(
        config.training, max_steps=most, eval_every=most, epochs=0, final_epochs=0, refit="none"
    )
    heads = attrs.evolve(config.heads, finish="always" if probe else "none")
    config = attrs.evolve(config, training=training, heads=heads, guard=False)
    if config.method not in META_METHODS:
        return config
    recipe = directory / _RECIPE
    write_recipe(recipe, weights["objectives"], weights["end_task"])
    meta = attrs.evolve(config.meta, rule=AUTO, control="none")  # nothing is learned any more
    training = attrs.evolve(training, task_weights="equal")  # the recipe says what to begin with
    return attrs.evolve(config, method="static", weights=str(recipe), meta=meta, training=training)


@attrs.frozen(eq=False, kw_only=True)
class Found:
    """What a finished search leaves for the training after it.

    :param resolved: the run that the search carried out, of a race the candidate's.
    :param config: of the training whose model dev chose. :param evaluations: its own.
    :param best_is_mean: whether dev chose its running mean. :param weights: as in `settled`.
    """

    resolved: ResolvedRun
    config: RunConfig
    evaluations: Sequence[Mapping[str, float]]
    best_is_mean: bool = False
    weights: Mapping[str, Any]


def refit_run(found: Found, seed: int, directory: Path) -> ResolvedRun:
    """The training of one seed on train and dev. :param directory: its own."""
    from datasets import concatenate_datasets

    task = seed_task(found.resolved, seed)
    probe = ends_with_probe(found.config, task.metric, found.evaluations)
    config = attrs.evolve(found.config, seeds=(seed,), train_rows=0, dev_rows=0, split_anew=())
    error = standard_error(task.kind, len(task.splits["dev"]))
    last = longest_as_good(task.metric, found.evaluations, error)
    config = settled(config, length_of(config, [last]), found.weights, directory, probe)
    if config.training.mean_evaluation != "off":  # as dev has chosen
        mean = "only" if found.best_is_mean else "off"
        config = attrs.evolve(config, training=attrs.evolve(config.training, mean_evaluation=mean))
    both = concatenate_datasets([task.splits["train"], task.splits["dev"]])
    task = attrs.evolve(task, splits={**task.splits, "train": both})
    space = None if config.method in WITHOUT_OBJECTIVES else found.resolved.space
    return attrs.evolve(found.resolved, config=config, task=task, space=space, weighting=None)


def account_of(refitted: Trainer) -> dict[str, Any]:
    """What the report says of it: ``steps``, ``rows``, and ``said``, the same for people."""
    steps, rows = refitted.progress.done, len(refitted.session.task.splits["train"])
    length = f"{steps} step{'s' * (steps != 1)}" if steps else "a probe on the encoder as it comes"
    said = (
        f"trained once more on train and dev ({rows} rows, {length}): the model has seen dev, so the dev score is "
        "that of the model before and does not estimate this one"
    )
    return {"steps": steps, "rows": rows, "said": said}
