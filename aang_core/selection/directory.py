"""A selection's directory: found, taken before anything is made, and freed again where nothing came of it.

While it is unfinished, ``work/`` holds what it goes on from: what the selector has prepared, scores in shards, the time
spent, and digests of the data that all this belongs to.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aang_core.data.auxiliary import SETTINGS
from aang_core.errors import AangError, RunError
from aang_core.files import refuse_used, write_settings, write_text
from aang_core.selection.settings import (
    SelectionConfig,
    dump_selection_config,
    load_selection_config,
    plain_settings,
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


def check_same(directory: Path, config: SelectionConfig) -> None:
    """Whether the selection in a directory was begun with these settings.

    :raises RunError: where there is none, or one with others; names what differs.
    """
    mine, theirs = plain_settings(config), plain_settings(begun_with(directory))
    differing = [
        f"{key} is {mine[key]!r} here and {theirs[key]!r} there"
        for key in mine
        if mine[key] != theirs[key]
    ]
    if differing:
        raise RunError(
            f"{directory} was begun with other settings: {'; '.join(differing)}; resume it with the same ones "
            "(`--resume --out` alone takes them from there), or begin another with another --out"
        )


@contextmanager
def taken(
    directory: Path, config: SelectionConfig, digests: Mapping[str, str], resume: bool
) -> Iterator[None]:
    """Take a directory for the block, or refuse: nothing that is there is ever overwritten.

    Where a mendable error comes before the selector has prepared anything, all that was made is removed again.

    :param digests: of the data, by name.
    :raises RunError: where it holds something else, or with `resume` a selection with other settings or other data.
    """
    new = not directory.exists()
    if resume:
        check_same(directory, config)
        _check_data(directory, digests)
    else:
        if (directory / SETTINGS).exists():
            raise RunError(
                f"{directory} holds a selection already; go on with --resume, or choose another --out"
            )
        refuse_used(directory)
        write_settings(directory / SETTINGS, dump_selection_config(config))
        write_text(directory / WORK / _INPUTS, json.dumps(digests))
    try:
        yield
    except AangError:
        if not resume and not any((directory / WORK).rglob("*.safetensors")):
            shutil.rmtree(directory / WORK)
            (directory / SETTINGS).unlink()
            if new:
                directory.rmdir()
        raise


def _check_data(directory: Path, digests: Mapping[str, str]) -> None:
    path = directory / WORK / _INPUTS
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
