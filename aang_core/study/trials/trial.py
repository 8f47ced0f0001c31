"""One trial: a whole run in its own directory, or one seed of a run; and the process that carries it out.

``python -m aang_core.study.trials.trial`` is that process. One line of JSON on stdin says what to run, lines of JSON on
stdout report the progress, and everything else goes to stderr. When stdin closes, the parent process is gone, and the
trial stops as if it were interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from aang_core.config.file import dump_config
from aang_core.config.settings import SECTIONS, RunConfig
from aang_core.errors import AangError, RunError, one_message
from aang_core.files import toml_of
from aang_core.rundir.directory import run_directory, seed_directory
from aang_core.train.callbacks import Callback, Stopped

if TYPE_CHECKING:
    from aang_core.train.callbacks import Progress
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord


@attrs.frozen(kw_only=True)
class Trial:
    """A configuration in its own directory: with one seed, or whole.

    A trial of one seed among several is a part of the run in `directory`. The process that starts these trials holds
    the directory and writes the report over all seeds.

    :param config: of the run. :param directory: the run directory.
    :param configuration: its name, for people; empty for the seeds of one run.
    :param seed: its one seed; None for every seed of the configuration.
    :param search: the directory of a trial that differs in ``training.refit`` alone; once that is finished, what both
        share is not trained again. None where there is none.
    :param log: where its process writes warnings, remarks and tracebacks; None for the stderr of this one.
    """

    config: RunConfig
    directory: Path
    configuration: str = ""
    seed: int | None = None
    search: Path | None = None
    log: Path | None = None

    @property
    def name(self) -> str:
        """Its name, for people."""
        seed = [] if self.seed is None else [f"seed {self.seed}"]
        return ", ".join([*filter(None, [self.configuration]), *seed])

    @property
    def is_part(self) -> bool:
        """Whether it is one of the seeds of a run."""
        return self.seed is not None and len(self.config.seeds) > 1

    @property
    def place(self) -> Path:
        """Where its files lie."""
        if self.seed is None:
            return self.directory
        return seed_directory(self.directory, self.config.seeds, self.seed)

    @property
    def is_finished(self) -> bool:
        """Whether it has written its report."""
        return (self.place / ("seed.json" if self.is_part else "report.json")).is_file()

    def order(self, *, threads: int = 0, records: bool = False) -> str:
        """The trial as a line of JSON, with this folder, from which relative names of tasks and models are resolved.

        :param threads: of its process; 0 where the environment sets them.
        :param records: whether it reports the record of every step.
        """
        facts = {
            "config": dump_config(self.config),
            "directory": str(self.directory),
            "configuration": self.configuration,
            "seed": self.seed,
            "search": str(self.search) if self.search else "",
            "log": str(self.log) if self.log else "",
        }
        how = {"folder": os.getcwd(), "threads": threads, "records": records}
        return json.dumps({**facts, **how})

    @classmethod
    def ordered(cls, order: Mapping[str, Any]) -> Trial:
        """The inverse of `order`."""
        return cls(
            config=RunConfig.from_mapping(toml_of(order["config"])),
            directory=Path(order["directory"]),
            configuration=order["configuration"],
            seed=order["seed"],
            search=Path(order["search"]) if order["search"] else None,
            log=Path(order["log"]) if order["log"] else None,
        )


@attrs.frozen(kw_only=True)
class Outcome:
    """How a trial ended.

    :param attempts: starts in this call.
    :param error: why it failed; empty where it succeeded.
    """

    trial: Trial
    attempts: int = 1
    error: str = ""


def check_kept(trials: Sequence[Trial], summary: str) -> None:
    """Refuse to mix runs of different settings.

    :param summary: the heading of several faults.
    :raises RunError: names every trial whose directory holds a run with other settings, and these settings.
    """
    faults = []
    for trial in trials:
        place = run_directory(trial.directory, trial.config)
        try:
            place.check(resume=place.is_begun)
        except RunError as fault:
            faults.append(f"{trial.name}: {fault}")
    if faults:
        raise RunError(one_message(faults, summary))


def differing_settings(configurations: Mapping[str, RunConfig]) -> dict[str, dict[str, Any]]:
    """Name → its values of the settings in which the configurations differ."""
    dotted = {name: _dotted(config) for name, config in configurations.items()}
    keys = dict.fromkeys(key for table in dotted.values() for key in table)
    varied = [key for key in keys if len({repr(table.get(key)) for table in dotted.values()}) > 1]
    return {name: {key: table.get(key) for key in varied} for name, table in dotted.items()}


def _dotted(config: RunConfig) -> dict[str, Any]:
    """Every setting by dotted key, without the seeds."""
    found: dict[str, Any] = {}
    for name, value in attrs.asdict(config).items():
        key = name.rstrip("_")
        if key in SECTIONS:
            found |= {f"{key}.{inner}": part for inner, part in value.items()}
        elif key == "primitives":
            found |= {f"{key}.{p}.{k}": v for p, table in value.items() for k, v in table.items()}
        elif key != "seeds":
            found[key] = value
    return found


class Told(Callback):
    """Writes the progress to a stream, for the process that waits: steps, dev scores and, on request, whole records.

    :ivar records: whether to write records. :ivar remarks: whether to write remarks; else they go to stderr, the log.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.training = self.stopped = self.records = self.remarks = False

    @property
    def stopping(self) -> bool:
        return self.stopped

    def interrupt(self, number: int, _: object) -> None:  # noqa: ARG002
        """Handle a signal: finish the current step first; a second signal stops at once."""
        again, self.stopped = self.stopped, True
        if again or not self.training:
            raise KeyboardInterrupt

    def tell(self, **facts: Any) -> None:
        """Write one line. If the reader is gone, stop after the current step."""
        try:
            print(json.dumps(facts), file=self.stream, flush=True)
        except BrokenPipeError:
            self.stopped = True

    def on_seed(self, session: Session) -> None:
        from aang_core.train.trainer import phases

        self.tell(steps=sum(steps for _, steps in phases(session)))

    def on_step(self, session: Session, record: StepRecord, progress: Progress) -> None:  # noqa: ARG002
        self.training = True
        whole = {"record": attrs.asdict(record), "progress": attrs.asdict(progress)}
        self.tell(done=progress.done, **(whole if self.records else {}))

    def on_evaluation(self, session: Session, progress: Progress) -> None:  # noqa: ARG002
        whole = {"progress": attrs.asdict(progress)} if self.records else {}
        if whole or progress.best_score is not None:
            self.tell(best=progress.best_score, **whole)

    def on_trained(self, session: Session, progress: Progress) -> None:  # noqa: ARG002
        self.training = False
        if self.stopped:
            raise KeyboardInterrupt

    def on_remark(self, remark: str) -> None:
        if self.remarks:
            self.tell(remark=remark)
        else:
            print(remark, file=sys.stderr, flush=True)


def _first_line() -> bytes:
    """The order. Read byte by byte: a buffered reader would swallow what `_stop_when_alone` waits for."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line


def _stop_when_alone() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Run the trial of stdin. Exit codes: 0 finished, 1 an error that the user can mend, 130 interrupted."""
    from aang_core.study.run import run_trial
    from aang_core.study.seeds import run_part

    told = Told(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # what libraries print is for the log
    order = json.loads(_first_line())
    told.records, told.remarks = order["records"], not order["log"]
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, told.interrupt)
    threading.Thread(target=_stop_when_alone, daemon=True).start()
    try:
        os.chdir(order["folder"])  # where the study was started: tasks are named from there
        trial = Trial.ordered(order)
        if trial.is_part:
            run_part(trial, told)
        else:
            run_trial(trial, callbacks=told)
        told.tell(error="")
    except AangError as error:
        told.tell(error=str(error))
        return 1
    except (KeyboardInterrupt, Stopped):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
