"""One trial of a sweep: a configuration with one seed in its own directory, from its checkpoint where it has one.

``python -m aang_core.study.sweep.trial`` is the process that a sweep starts for it: a line of JSON on stdin says what
to run, lines of JSON on stdout tell how it goes, everything else is written to stderr. When stdin closes, its sweep is
gone, and the trial stops as if it were interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from aang_core.config.file import dump_config
from aang_core.config.settings import RunConfig
from aang_core.errors import AangError
from aang_core.train.callbacks import Stopped, Watcher

if TYPE_CHECKING:
    from aang_core.train.callbacks import Progress
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord


@attrs.frozen(kw_only=True)
class Trial:
    """:param configuration: the name of the configuration that the trial belongs to.
    :param config: that configuration, with this trial's seed alone.
    :param directory: the trial's run directory.
    :param log: where its process writes warnings, remarks and tracebacks.
    """

    configuration: str
    config: RunConfig
    directory: Path
    log: Path

    @property
    def seed(self) -> int:
        """The one seed."""
        return self.config.seeds[0]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.configuration}, seed {self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether its report is there."""
        return (self.directory / "report.json").is_file()


@attrs.frozen(kw_only=True)
class Outcome:
    """How a trial ended.

    :param attempts: how often this sweep started it.
    :param error: why it failed; empty where it did not.
    """

    trial: Trial
    attempts: int
    error: str = ""


def order_for(trial: Trial, folder: str = "") -> str:
    """What a trial's process is told.

    :param folder: where relative names of tasks and models are looked up; by default here.
    """
    facts = {"config": dump_config(trial.config), "directory": str(trial.directory)}
    return json.dumps({**facts, "folder": folder or os.getcwd()})


class Told(Watcher):
    """Tells a stream what a sweep shows: the steps, and dev."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.training = self.stopped = False

    @property
    def stopping(self) -> bool:
        return self.stopped

    def interrupt(self, number: int, _: object) -> None:  # noqa: ARG002
        """A signal's handler: the step under way ends first, where one is; the second signal stops at once."""
        again, self.stopped = self.stopped, True
        if again or not self.training:
            raise KeyboardInterrupt

    def tell(self, **facts: Any) -> None:
        """One line; where nobody reads it any more, the trial stops behind its step."""
        try:
            print(json.dumps(facts), file=self.stream, flush=True)
        except BrokenPipeError:
            self.stopped = True

    def on_seed(self, session: Session) -> None:
        from aang_core.train.trainer import phases

        self.tell(steps=sum(steps for _, steps in phases(session)))

    def on_step(
        self,
        session: Session,  # noqa: ARG002
        record: StepRecord,  # noqa: ARG002
        progress: Progress,
    ) -> None:
        self.training = True
        self.tell(done=progress.done)

    def on_evaluation(self, session: Session, progress: Progress) -> None:  # noqa: ARG002
        if progress.best_score is not None:
            self.tell(best=progress.best_score)

    def on_trained(self, session: Session, progress: Progress) -> None:  # noqa: ARG002
        self.training = False
        if self.stopped:
            raise KeyboardInterrupt

    def on_remark(self, remark: str) -> None:
        print(remark, file=sys.stderr, flush=True)


def _first_line() -> bytes:
    """The order. Read byte by byte: a buffered reader would take what `_stop_with_the_sweep` waits for."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line


def _stop_with_the_sweep() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """The process: 0 where the trial is finished, 1 for an error that the user can mend, 130 when interrupted."""
    from aang_core.study.run import run_or_resume

    told = Told(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # what libraries print is for the log
    order = json.loads(_first_line())
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, told.interrupt)
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    try:
        os.chdir(order["folder"])  # where the sweep was started: tasks are named from there
        config = RunConfig.from_mapping(tomllib.loads(order["config"]))
        run_or_resume(config, Path(order["directory"]), watcher=told)
        told.tell(error="")
    except AangError as error:
        told.tell(error=str(error))
        return 1
    except (KeyboardInterrupt, Stopped):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
