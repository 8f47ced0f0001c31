"""A selection experiment as a file. In: TOML. Out: `ExperimentSpec`, checked; every fault reported at once.

::

    title = "…"
    targets = ["tasks/rte", "tasks/mrpc"]       # each in turn
    pools = ["tasks/rte", "tasks/mrpc", "tasks/wnli"]   # for each target, all but itself
    selectors = ["discriminator-bce"]
    controls = ["none", "random", "random-matched", "full"]
    top = [100, 500]                            # N: how many examples are kept
    seeds = [0, 1, 2]
    [rows]                                      # optional: rows drawn for each seed; 0 for all
    train = 300
    [run]                                       # settings of every run, as in its config.toml
    model = "bundled:minilm"
    training = { lr = 1e-4 }
    [select]                                    # settings of every selection, as in its selection.toml
    examples_per_task = 200
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from aang_core.config.file import read_config
from aang_core.config.schema import Choice, Flag, Several, Text, Whole, setting
from aang_core.config.settings import TARGET_ORIENTED, RunConfig, laid_over, settled
from aang_core.data.auxiliary import same_task
from aang_core.errors import ConfigError, one_message
from aang_core.selection.settings import Options, SelectionConfig
from aang_core.study.arms import CONTROLS, Arm, arms_of

_OF_ARMS = ("task", "selection", "top", "seeds", "aux_tasks", "space", "method", "train_rows")
_OF_SELECTIONS = ("target", "from", "selector", "seed", "top", "train_rows")


@attrs.frozen(kw_only=True)
class Rows:
    """How many rows are drawn for each seed, the same for every arm; 0 for all.

    :param train, dev, test: of the target. :param pool: training rows of each further task.
    """

    train: int = setting(Whole(0), 0)
    dev: int = setting(Whole(0), 0)
    test: int = setting(Whole(0), 0)
    pool: int = setting(Whole(0), 0)


@attrs.frozen(kw_only=True)
class ExperimentSpec:
    """Everything that an experiment depends on.

    :param keep_models: whether finished runs keep their model and checkpoint, which nothing here reads again.
    """

    title: str = setting(Text(), "Selected auxiliary data")
    targets: tuple[str, ...] = setting(Several(Text(), least=1), ())
    pools: tuple[str, ...] = setting(Several(Text(), least=1), ())
    selectors: tuple[str, ...] = setting(Several(Text(), least=1), ("discriminator-bce",))
    controls: tuple[str, ...] = setting(Several(Choice(CONTROLS)), CONTROLS)
    top: tuple[int, ...] = setting(Several(Whole(1), least=1), (500,))
    seeds: tuple[int, ...] = setting(Several(Whole(0), least=1), (0,))
    keep_models: bool = setting(Flag(), False)
    rows: Rows = attrs.field(factory=Rows)
    run: Mapping[str, Any] = attrs.field(factory=dict, validator=Options())
    select: Mapping[str, Any] = attrs.field(factory=dict, validator=Options())

    @property
    def arms(self) -> tuple[Arm, ...]:
        """In the order of the tables."""
        return arms_of(self.selectors, self.controls, self.top)

    def pools_of(self, target: str) -> list[str]:
        """The further tasks of a target: every pool but the target itself."""
        return [pool for pool in self.pools if not same_task(pool, target)]


def read_spec(path: Path) -> ExperimentSpec:
    """An experiment's file.

    :raises ConfigError: where it cannot be read, or with every fault of it, each with its line.
    """
    raw, origins = read_config(path)
    faults: list[str] = []
    arguments = settled(ExperimentSpec, raw, "", origins, faults)
    rows = raw.get("rows", {})
    if isinstance(rows, dict):
        arguments["rows"] = settled(Rows, rows, "rows.", origins, faults)
    else:
        faults.append(f"{origins['rows']}: `rows` must be a table (got {rows!r})")
    for key, varied in (("run", _OF_ARMS), ("select", _OF_SELECTIONS)):
        table = raw.get(key, {})
        faults += [
            f"{origins.get(f'{key}.{name}', path)}: `{key}.{name}` is what an experiment varies; leave it out"
            for name in varied
            if isinstance(table, dict) and name in table
        ]
    faults += [
        f"{path}: `{key}` must list at least one task"
        for key in ("targets", "pools")
        if key not in raw
    ]
    faults += [] if faults else _inner_faults(path, arguments)
    if faults:
        raise ConfigError(one_message(faults, str(path)))
    arguments["rows"] = Rows(**arguments["rows"])
    return ExperimentSpec(**arguments)


def _inner_faults(path: Path, arguments: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the settings of runs and selections, and with the parts taken together."""
    spec = {"target": arguments["targets"][0], "from": list(arguments["pools"])}
    checks = (
        (RunConfig.from_mapping, run_settings(arguments.get("run", {}), {}), "run"),
        (SelectionConfig.from_mapping, {**arguments.get("select", {}), **spec}, "select"),
    )
    for check, settings, table in checks:
        try:
            check(settings)
        except ConfigError as fault:
            yield f"{path}: [{table}]: {fault}"
    both = [name for name in arguments.get("selectors", ()) if name in CONTROLS]
    yield from (f"{path}: {name!r} is a control; list it under `controls`" for name in both)
    for target in arguments["targets"]:
        if all(same_task(pool, target) for pool in arguments["pools"]):
            yield f"{path}: the target {target!r} is the only pool, so there is nothing to select from"


def run_settings(given: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one run: target-oriented training, under the experiment's own, under those of the arm."""
    return {**laid_over(TARGET_ORIENTED, given), **over}


def dump_spec(spec: ExperimentSpec) -> str:
    """The whole specification as TOML; `read_spec` gives an equal one back."""
    return tomli_w.dumps(attrs.asdict(spec))
