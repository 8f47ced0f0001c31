"""Loggers send a run's history to other places while it trains. ``history.jsonl`` is always written as well.

A plugin registers a `records.Logger`; a run opens it for each seed and drives it from a callback (`Logged`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError, one_message
from aang_core.registry.options import settings_of
from aang_core.registry.records import Logger, load_factory
from aang_core.rundir.directory import seed_directory
from aang_core.train.callbacks import Callback, Progress

if TYPE_CHECKING:
    from aang_core.registry.registry import Registry
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord


@attrs.frozen(kw_only=True)
class Opening:
    """What a logger's factory is called with, once a seed.

    :param directory: the seed's own; a logger that writes files puts them under its name in it.
    :param name: of the seed's run, for people.
    :param config: the whole configuration as plain values.
    :param options: the record's, with the run's ``[loggers.NAME]`` over them.
    :param step: the first step that it receives; above 1 when a run resumes.
    """

    directory: Path
    name: str
    config: Mapping[str, Any]
    step: int
    options: Mapping[str, Any] = attrs.field(factory=dict)


class RunLogger(Protocol):
    """One seed's log."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name (``loss/end-task``, ``weight/ID``, ``dev/accuracy``, …) at a step, counted from 1."""

    def close(self) -> None:
        """The seed is done, or failed."""


def chosen_loggers(names: Sequence[str], registry: Registry) -> list[Logger]:
    """The loggers of a run.

    :raises ConfigError: names every logger that is unknown, or whose library is not installed.
    """
    faults, found = [], []
    for name in names:
        if name not in registry.loggers:
            faults.append(registry.unknown("logger", name, registry.loggers))
            continue
        record = registry.loggers[name].record
        missing = [module for module in record.needs if find_spec(module) is None]
        if missing:
            hint = f": {record.install}" if record.install else ""
            faults.append(
                f"the logger {name!r} needs {', '.join(missing)}, which is not installed{hint}"
            )
        found.append(record)
    if faults:
        raise ConfigError(one_message(faults, "log"))
    return found


class Logged(Callback):
    """Drives a run's loggers."""

    def __init__(self, records: Sequence[Logger], config: RunConfig) -> None:
        self.records, self.config = records, config
        self.directory = Path()
        self.open: list[RunLogger] = []
        self.awaited = False

    def on_begin(self, directory: Path) -> None:
        self.directory = directory

    def on_seed(self, session: Session) -> None:
        self.close()
        self.awaited = session.processes.is_main

    def on_step(self, session: Session, record: StepRecord, progress: Progress) -> None:
        self._log(session, step_values(record, progress), progress.done)

    def on_evaluation(self, session: Session, progress: Progress) -> None:
        newest = {f"dev/{n}": v for n, v in progress.evaluations[-1].items() if n != "step"}
        self._log(session, newest, progress.done)

    def close(self) -> None:
        """Close the present seed's logs."""
        while self.open:
            self.open.pop().close()

    def _log(self, session: Session, values: Mapping[str, float], step: int) -> None:
        if self.awaited:  # the first step is known only now
            self.awaited = False
            for record in self.records:
                opening = self._opening(record, session, step)
                self.open.append(load_factory(record.factory)(opening))
        for logger in self.open:
            logger.log(values, step)

    def _opening(self, record: Logger, session: Session, step: int) -> Opening:
        return Opening(
            directory=seed_directory(self.directory, self.config.seeds, session.seed),
            name=f"{self.directory.name} seed {session.seed}",
            config={name.rstrip("_"): v for name, v in attrs.asdict(self.config).items()},
            step=step,
            options=settings_of(record, self.config.loggers),
        )


def step_values(record: StepRecord, progress: Progress) -> dict[str, float]:
    """One step's numbers by name."""
    tables = {
        "loss": record.losses,
        "weight": record.weights,
        "alignment": record.alignments,
        "norm": record.norms,
    }
    values = {f"{kind}/{id_}": v for kind, table in tables.items() for id_, v in table.items()}
    return {
        **values,
        "weight/end-task": record.end_task_weight,
        "lr": record.lr,
        "tokens": float(progress.cost["tokens"]),
    }
