"""A race of settings: all candidates train briefly, the best in full, and dev chooses the model that is kept.

No recipe for few labels wins on every task, so a space may hold candidates in place of objectives (`Space.candidates`):
other spaces, methods and settings. A qualifying round is successive halving with few arms (Jamieson and Talwalkar,
AISTATS 2016): it shares the steps of one training among all; the two best then train in full. Where the run trains once
more on train and dev (``training.refit``), the best one alone does, so a race costs at most three trainings either way.
Dev chooses at the end among all that was trained. We differ from the paper in that the finalists start anew: a learning
rate that has come down to zero cannot go on.

Test is read once, for the model that is kept; the cost of all trainings is the run's cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from aang_core.batch.protocols import no_op
from aang_core.config.file import dump_config
from aang_core.config.settings import RunConfig, laid_over
from aang_core.errors import ConfigError, faults_in, one_message
from aang_core.files import toml_of
from aang_core.registry.legality import Illegal, enumerate_objectives
from aang_core.registry.spaces import check_candidates, suggestions
from aang_core.train.head_fitting import begins_with_probe
from aang_core.train.resolve import ResolvedRun, resolved_as, seed_task

_FINALISTS = 2
"""How many candidates train in full where nothing is trained once more after the race."""

_MOST_SHORT = 4
"""With more candidates the first round halves them, so that a qualifying training is never shorter than an eighth."""


@attrs.frozen(kw_only=True)
class Tried:
    """One training of a race, finished.

    :param steps: the most that it could take. :param best_step: the step that dev chose.
    :param score: on dev, by the task's metric; -inf where it was never finite.
    :param dev: every metric there. :param cost: as in the report.
    :param seconds: of wall time; :param cpu_seconds: of this process.
    """

    name: str
    steps: int
    best_step: int
    score: float
    dev: Mapping[str, float]
    cost: Mapping[str, int]
    seconds: float
    cpu_seconds: float


def races(resolved: ResolvedRun) -> bool:
    """Whether each seed is a race."""
    return resolved.space is not None and bool(resolved.space.candidates)


def entrants(
    resolved: ResolvedRun, remark: Callable[[str], None] = no_op
) -> dict[str, ResolvedRun]:
    """The candidates of a race at full length, by name, in the order in which a tie is broken.

    A candidate's own settings go before the run's: they are what the race compares. What its space suggests goes before
    the defaults alone. A candidate that this task does not suit is left out.

    :param remark: told of each that is left out, and why.
    :raises ConfigError: names every candidate that cannot run, and settings of the run that do not go with a race.
    """
    space, config = resolved.space, resolved.config
    if space is None or not space.candidates:
        return {}
    faults = [
        f"a race chooses by dev, and `{name}` would choose once more: leave it out"
        for name, given in (("guard", config.guard), ("weights", config.weights))
        if given
    ]
    faults += check_candidates(space, resolved.registry)
    usual = RunConfig.from_mapping({"space": config.space}, suggest=suggestions(resolved.registry))
    given = toml_of(dump_config(config))
    changed = _changed(given, toml_of(dump_config(usual)))
    found: dict[str, ResolvedRun] = {}
    for name, settings in {} if faults else space.candidates.items():
        try:
            found[name] = _entrant(resolved, settings, given, changed)
        except ConfigError as error:
            faults += [f"candidate {name}: {fault}" for fault in faults_in(str(error))]
    if faults:
        raise ConfigError(one_message(faults, f"space {space.name}"))
    unfit = {name: reason for name, each in found.items() if (reason := _unfit(each))}
    said = [f"candidate {name} does not suit this task: {why}" for name, why in unfit.items()]
    if unfit.keys() == found.keys():
        raise ConfigError(one_message(said, f"space {space.name}: no candidate can run"))
    for text in said:
        remark(f"race: {text}; left out")
    return {name: each for name, each in found.items() if name not in unfit}


def _unfit(resolved: ResolvedRun) -> str:
    """Why a candidate cannot run on this task; empty where it can, as far as this is known before data is bound."""
    config, task = resolved.config, resolved.task
    heads = config.heads
    probes = begins_with_probe(config) or heads.finish != "none"
    if probes and task.kind != "class":
        return f"a probe needs classes, one a text, and the task is of the kind {task.kind!r}"
    if resolved.space is None:
        return ""
    verdicts = enumerate_objectives(
        resolved.space,
        resolved.registry,
        backbone_capabilities=resolved.kind.capabilities,
        task_capabilities=seed_task(resolved, config.seeds[0]).capabilities,
        run_capabilities=config.capabilities,
    )
    reasons = [v.reason for v in verdicts if isinstance(v, Illegal)]
    return reasons[0] if len(reasons) == len(verdicts) else ""


def _entrant(
    resolved: ResolvedRun,
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
    changed: Mapping[str, Any],
) -> ResolvedRun:
    """A candidate. :param given: the run's configuration. :param changed: what of it is not by default."""
    own = {"space": resolved.config.space, **settings}
    entry = resolved.registry.spaces.get(str(own["space"]))
    suggested = entry.record.settings if entry is not None and "space" in settings else {}
    raw = laid_over(given, laid_over(suggested, laid_over(changed, own)))
    config = RunConfig.from_mapping(raw)
    once = attrs.evolve(config.training, refit="none")  # the race's winner alone is trained again
    return resolved_as(resolved, attrs.evolve(config, training=once))


def _changed(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration sets otherwise than by default, tables entry by entry."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        default = usual.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value = _changed(value, default)
            if value:
                found[key] = value
        elif value != default:
            found[key] = value
    return found


def in_short(resolved: ResolvedRun, steps: int) -> ResolvedRun:
    """The same run with fewer steps."""
    config = resolved.config
    training = attrs.evolve(config.training, max_steps=min(steps, config.training.max_steps))
    return attrs.evolve(resolved, config=attrs.evolve(config, training=training))


def steps_of(resolved: ResolvedRun) -> int:
    """The most steps of a training; a probe takes none."""
    config = resolved.config
    return 0 if config.method == "probe" else config.training.max_steps


def rounds(candidates: int, steps: int, refit: bool = False) -> list[tuple[int, int]]:
    """(how many train, for how many steps) of each round; all together at most three times `steps`.

    :param refit: whether the best is trained once more afterwards, which takes the second finalist's place.
    """
    short, finalists = [], 1 if refit else _FINALISTS
    while candidates > finalists:
        short.append(candidates)
        candidates = max(finalists, candidates // 2) if candidates > _MOST_SHORT else finalists
    shared = [(count, max(1, steps // (len(short) * count))) for count in short]
    return [*shared, (candidates, steps)]


def best_of(tried: Iterable[Tried]) -> Tried:
    """The one with the best score on dev; of equal ones the first, which also costs less."""
    return max(tried, key=lambda each: each.score)


def qualified(tried: Sequence[Tried], count: int) -> list[str]:
    """The names of the best `count`, in the order in which they ran."""
    ordered = sorted(tried, key=lambda each: -each.score)  # stable: the earlier of equal ones
    kept = {each.name for each in ordered[:count]}
    return [each.name for each in tried if each.name in kept]


def verdict(tried: Sequence[Tried], metric: str) -> dict[str, Any]:
    """What a race tried and what it keeps, for the report.

    :return: ``kept`` (a candidate's name) and the ``steps`` it trained at most, ``metric``, ``tried``: every training
        in its order, and ``said``, the same for people.
    """
    best = best_of(tried)
    others = [each for each in tried if each.name != best.name]
    said = f"race: {best.name} is kept, {best.score:.4f} on dev ({metric}) after {best.best_step} steps"
    if others:
        second = best_of(others)
        said += f"; next {second.name} with {second.score:.4f}"
    tokens = sum(each.cost["tokens"] for each in tried)
    said += f"; {len(tried)} trainings, {tokens:,} tokens"
    return {
        "kept": best.name,
        "steps": best.steps,
        "metric": metric,
        "tried": [attrs.asdict(each) for each in tried],
        "said": said,
    }


def is_kept(tried: Mapping[str, Any], race: Mapping[str, Any]) -> bool:
    """Whether an entry of ``tried`` is the training that the race of a report kept."""
    return bool((tried["name"], tried["steps"]) == (race["kept"], race["steps"]))
