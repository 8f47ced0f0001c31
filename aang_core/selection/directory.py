"""A selection's directory, and its files while the selection is unfinished.

Until it is finished, ``work/`` holds what a resume needs: what the selector has prepared, scores in shards, the time
spent, and digests of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from aang_core.data.auxiliary import SETTINGS
from aang_core.errors import RunError
from aang_core.files import write_text
from aang_core.rundir.directory import JobDirectory
from aang_core.selection.settings import (
    SelectionConfig,
    dump_selection_config,
    load_selection_config,
)
from aang_core.train.callbacks import Spent

WORK = "work"
_INPUTS = "inputs.json"
_SPENT = "spent.json"
_DAMAGED = "is damaged ({cause!r}); begin another selection with another --out"


def begun_with(directory: Path) -> SelectionConfig:
    """The settings that the selection in a directory was begun with.

    :raises RunError: where there is none.
    """
    path = directory / SETTINGS
    if not path.is_file():
        raise RunError(f"{directory} holds no selection to resume (no {SETTINGS})")
    return load_selection_config(path)


def selection_directory(path: Path, config: SelectionConfig) -> JobDirectory:
    """The directory of a selection with these settings."""
    return JobDirectory(
        path=path,
        what="selection",
        mark=SETTINGS,
        text=dump_selection_config(config),
        read=lambda mark: dump_selection_config(load_selection_config(mark)),
    )


def check_data(directory: Path, digests: Mapping[str, str], resume: bool) -> None:
    """Note the data that a selection begins with, or with `resume` compare it.

    :param digests: of the data, by name.
    :raises RunError: where the data changed since the selection was begun; names which.
    """
    path = directory / WORK / _INPUTS
    if not resume:
        write_text(path, json.dumps(digests))
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in digests if before.get(name) != digests[name]]
    except (OSError, ValueError, AttributeError) as cause:
        raise RunError(f"{path} {_DAMAGED.format(cause=cause)}") from cause
    if differing:
        raise RunError(
            f"the data of {', '.join(differing)} changed since the selection in {directory} was begun; "
            "begin another with another --out"
        )


class Clock:
    """Time spent on a selection over all its interruptions.

    :param started: when this part of it began.
    :raises RunError: where what was noted before is damaged.
    """

    def __init__(self, directory: Path, started: Spent) -> None:
        self.path, self.started = directory / WORK / _SPENT, started
        self.before = Spent()
        if self.path.exists():
            try:
                self.before = Spent(**json.loads(self.path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as cause:
                raise RunError(f"{self.path} {_DAMAGED.format(cause=cause)}") from cause

    def total(self) -> Spent:
        """Until now."""
        return self.before.plus(Spent.now().since(self.started))

    def note(self) -> None:
        """Write the total down."""
        total = self.total()
        text = json.dumps({"seconds": total.seconds, "cpu_seconds": total.cpu_seconds})
        write_text(self.path, text)
