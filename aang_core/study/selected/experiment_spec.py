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

from aang_core.config.fields import RecordOf, section, setting
from aang_core.config.file import read_config
from aang_core.config.schema import (
    Anything,
    Choice,
    Flag,
    Integer,
    ListOf,
    TableOf,
    Text,
    faults_of,
    said,
)
from aang_core.config.settings import RunConfig
from aang_core.data.auxiliary import same_task
from aang_core.errors import ConfigError, one_message
from aang_core.selection.settings import CONTROLS, SelectionConfig
from aang_core.study.selected.selections import Arm, arms_of

_DRAWN = ("train_rows", "dev_rows")
_OF_ARMS = ("task", "selection", "top", "seeds", "aux_tasks", "space", "method", *_DRAWN)
_OF_SELECTIONS = ("target", "from", "selector", "seed", "top", *_DRAWN)


@attrs.frozen(kw_only=True)
class Rows:
    """How many rows are drawn for each seed, the same for every arm; 0 for all.

    :param train, dev, test: of the target. :param pool: training rows of each further task.
    """

    train: int = setting(Integer(0), 0)
    dev: int = setting(Integer(0), 0)
    test: int = setting(Integer(0), 0)
    pool: int = setting(Integer(0), 0)


@attrs.frozen(kw_only=True)
class ExperimentSpec:
    """Everything that an experiment depends on.

    :param keep_models: whether finished runs keep their model and checkpoint, which nothing here reads again.
    """

    title: str = setting(Text(), "Selected auxiliary data")
    targets: tuple[str, ...] = setting(ListOf(Text(), 1, "task"))
    pools: tuple[str, ...] = setting(ListOf(Text(), 1, "task"))
    selectors: tuple[str, ...] = setting(ListOf(Text(), 1, "selector"), ("discriminator-bce",))
    controls: tuple[str, ...] = setting(ListOf(Choice(CONTROLS)), CONTROLS)
    top: tuple[int, ...] = setting(ListOf(Integer(1), 1, "number"), (500,))
    seeds: tuple[int, ...] = setting(ListOf(Integer(0), 1, "seed"), (0,))
    keep_models: bool = setting(Flag(), False)
    rows: Rows = section(Rows)
    run: Mapping[str, Any] = setting(TableOf(Anything()), {})
    select: Mapping[str, Any] = setting(TableOf(Anything()), {})

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
    raw, origins = read_config(path, "the experiment")
    rule = RecordOf(ExperimentSpec)
    faults = faults_of(rule, raw, origins)
    faults += [
        said((table, key), "is what an experiment varies; leave it out", origins)
        for table, varied in (("run", _OF_ARMS), ("select", _OF_SELECTIONS))
        for key in varied
        if isinstance(raw.get(table), dict) and key in raw[table]
    ]
    if not faults:
        spec: ExperimentSpec = rule.convert(raw)
        faults += _inner_faults(path, spec)
    if faults:
        raise ConfigError(one_message(faults, str(path)))
    return spec


def _inner_faults(path: Path, spec: ExperimentSpec) -> Iterator[str]:
    """What is wrong with the settings of runs and selections, and with the parts taken together."""
    selected = {"target": spec.targets[0], "from": list(spec.pools)}
    checks = (
        (RunConfig.from_mapping, spec.run, "run"),
        (SelectionConfig.from_mapping, {**spec.select, **selected}, "select"),
    )
    for check, settings, table in checks:
        try:
            check(settings)
        except ConfigError as fault:
            yield f"{path}: [{table}]: {fault}"
    both = [name for name in spec.selectors if name in CONTROLS]
    yield from (f"{path}: {name!r} is a control; list it under `controls`" for name in both)
    for target in spec.targets:
        if all(same_task(pool, target) for pool in spec.pools):
            yield f"{path}: the target {target!r} is the only pool, so there is nothing to select from"


def dump_spec(spec: ExperimentSpec) -> str:
    """The whole specification as TOML; `read_spec` gives an equal one back."""
    return tomli_w.dumps(attrs.asdict(spec))
