"""Learned weights as a recipe: taken from a finished run, used in another one, on the same or on new data.

``aang report RUN --weights FILE`` writes one; ``aang run --weights RUN-or-FILE`` begins with it; they
stay as they are, unless a rule learns. The logits log w_k are split into a part for each
primitive (least squares) and a rest for each objective. Together they give exactly these weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from aang_core.config.schema import Anything, Number, Table, TableOf, checked
from aang_core.config.settings import WITHOUT_OBJECTIVES, RunConfig
from aang_core.errors import ConfigError
from aang_core.files import json_of
from aang_core.registry.records import STAGES
from aang_core.rundir.report import write_json

if TYPE_CHECKING:
    from aang_core.method.weights.weighting import Factors, WeightState
    from aang_core.rundir.finished import FinishedRun

SCHEMA = 1
_FORM = Table(
    {
        "objectives": TableOf(Number(0), 1, "weight of an objective"),
        "end_task": Number(0, 1, without_least=True, without_most=True),
    },
    required=("objectives", "end_task"),
    others=Anything(),
)
_LEAST = 1e-9  # a weight of 0 has no logit; at this one an objective is as good as left out


@attrs.frozen(kw_only=True)
class Recipe:
    """:param objectives: id → weight, summing to 1.
    :param end_task: λ_e in (0, 1).
    :param where: what messages call it.
    """

    objectives: Mapping[str, float]
    end_task: float
    where: str


def write_recipe(path: Path, objectives: Mapping[str, float], end_task: float) -> None:
    """Write learned weights. λ is kept off 0 and 1, which have no logit."""
    within = min(max(end_task, _LEAST), 1 - _LEAST)
    write_json(path, {"schema": SCHEMA, "objectives": dict(objectives), "end_task": within})


def export_recipe(run: FinishedRun, path: Path) -> None:
    """Write a run's weights, averaged over its seeds.

    :raises ConfigError: where the run had no auxiliary objectives, or the file cannot be written.
    """
    report = run.report
    if not report["weights"]["objectives"]:
        raise ConfigError(
            f"{run.path} ({report['method']}) has no auxiliary objectives, so no weights to export"
        )
    origin = {name: report[name] for name in ("task", "space", "method", "model")}
    found = {name: report["weights"][name] for name in ("objectives", "end_task")}
    try:
        write_json(path, {"schema": SCHEMA, **found, "from": origin})
    except OSError as cause:
        raise ConfigError(f"cannot write {path}: {cause.strerror}") from cause


def read_recipe(where: str | Path) -> Recipe:
    """The weights in an exported file, a ``report.json``, or the run directory that holds one.

    :raises ConfigError: where there are none; says what was found.
    """
    path = Path(where).expanduser()
    path = path / "report.json" if path.is_dir() else path
    try:
        raw: Any = json_of(path.read_text("utf-8"))
    except OSError as cause:
        raise ConfigError(
            f"weights = {str(where)!r}: cannot read {path}: {cause.strerror}; expected a finished run or a file "
            "that `aang report RUN --weights FILE` has written"
        ) from cause
    except ValueError as cause:
        raise ConfigError(f"weights: {path} is no JSON: {cause}") from cause
    place = f"weights: {path}"
    if isinstance(raw, dict) and raw.get("schema") != SCHEMA:
        version = f"the schema is {raw.get('schema')!r}; this version of aang reads {SCHEMA}"
        raise ConfigError(f"{place}: {version}")
    found = raw.get("weights", raw) if isinstance(raw, dict) else raw
    checked(_FORM, found, {"": place}, what="weights")  # a run without objectives has no weights
    total = sum(found["objectives"].values())
    if not total > 0:
        raise ConfigError(f"{place}: every weight is 0")
    objectives = {id_: weight / total for id_, weight in found["objectives"].items()}
    return Recipe(objectives=objectives, end_task=found["end_task"], where=str(path))


def check_recipe(config: RunConfig) -> None:
    """Refuse a recipe that a run cannot use, before it begins.

    :raises ConfigError: as in `read_recipe`, or where the method has nothing to weigh.
    """
    if not config.weights:
        return
    if config.training.task_weights == "size":
        raise ConfigError(
            'weights and `training.task_weights = "size"` both say what to begin with; give one of them'
        )
    if config.method in WITHOUT_OBJECTIVES:
        raise ConfigError(
            f"weights: the method {config.method} has no auxiliary objectives to weigh; expected aang, tartan, static "
            "or pretrain-finetune"
        )
    read_recipe(config.weights)


def starting_state(where: str, factors: Factors) -> WeightState:
    """Equal weights, or those of the recipe at `where`, if it names one.

    :raises ConfigError: as in `read_recipe` and `initial_state`.
    """
    from aang_core.method.weights.weighting import WeightState

    if not where or not factors.ids:
        return WeightState.initial(factors)
    return initial_state(read_recipe(where), factors)


def initial_state(recipe: Recipe, factors: Factors) -> WeightState:
    """The state that has the recipe's weights. Objectives of the recipe that this run lacks are left out, and the
    others share their weight.

    :raises ConfigError: where this run has objectives that the recipe says nothing of; names them.
    """
    import torch
    from torch.nn.functional import one_hot

    from aang_core.method.weights.weighting import WeightState

    unknown = [id_ for id_ in factors.ids if id_ not in recipe.objectives]
    if unknown:
        raise ConfigError(
            f"{recipe.where} has no weight for {len(unknown)} of {len(factors.ids)} objectives: "
            f"{', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}. Run the space that it was learned on, or "
            "add their weights to the file"
        )
    weights = [max(recipe.objectives[id_], _LEAST) for id_ in factors.ids]
    left = torch.tensor(weights, dtype=torch.float64).log()
    members = torch.cat(
        [one_hot(factors.members[stage], len(factors.names[stage])) for stage in STAGES], dim=1
    ).double()
    left = left - left.mean()
    # least squares; the shortest, so that no stage is preferred
    common = torch.linalg.pinv(members) @ left
    sizes = [len(factors.names[stage]) for stage in STAGES]
    stages = dict(zip(STAGES, common.split(sizes), strict=True))
    shares = [recipe.end_task, 1.0 - recipe.end_task]
    return attrs.evolve(
        WeightState.initial(factors),
        objectives=left - members @ common,
        stages=stages,
        end_task=torch.tensor(shares, dtype=torch.float64).log(),
    )
