"""A run's directory: found, taken before the first step, and freed again where nothing came of the run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aang_core.config.file import dump_config, load_config
from aang_core.config.settings import RunConfig
from aang_core.errors import AangError, RunError
from aang_core.files import locked, refuse_used, write_settings
from aang_core.processes import Processes
from aang_core.rundir.failures import begun
from aang_core.train.resolve import ResolvedRun

_LONGEST_NAME = 100


def seed_directory(directory: Path, config: RunConfig, seed: int) -> Path:
    """Where one seed's files lie: the run directory itself, or ``seed-N`` in it where there are several."""
    return directory if len(config.seeds) == 1 else directory / f"seed-{seed}"


def fresh_directory(resolved: ResolvedRun) -> Path:
    """``runs/TASK-SPACE-METHOD``, with a number behind it where that is taken."""
    config = resolved.config
    parts = [resolved.task.name, *([resolved.space.name] if resolved.space else []), config.method]
    return unused_directory("runs", parts)


def unused_directory(parent: str, parts: Sequence[str]) -> Path:
    """``PARENT/A-B-C``, with a number behind it where that is taken."""
    # a task's name is anything that its file says: a path, line ends, a thousand letters
    name = re.sub(r"[^\w.+-]+", "-", "-".join(parts)).lstrip(".-")[-_LONGEST_NAME:]
    base = Path(parent) / name
    taken = (base.with_name(f"{base.name}-{n}") for n in range(2, 100_000))
    return base if not base.exists() else next(place for place in taken if not place.exists())


@contextmanager
def occupied(
    directory: Path, config: RunConfig, resume: bool, processes: Processes
) -> Iterator[None]:
    """Take a run directory for the block, or refuse: nothing that is there is ever overwritten.

    Where a mendable error comes before the first step there is nothing to resume, and all that the run made is removed
    again; a folder that was there before stays.

    :raises RunError: where it holds something else, a run already, one that another process is at work on, or with
        `resume` a run of another configuration.
    """
    made = not directory.exists()
    _take(directory, config, resume, processes)
    try:
        with _alone(directory, processes):
            yield
    except AangError:
        there = (directory / "config.toml").is_file()  # and not taken away meanwhile
        if not resume and there and not begun(directory) and processes.is_main:
            _free(directory, made)
        raise


@contextmanager
def _alone(directory: Path, processes: Processes) -> Iterator[None]:
    """Hold the directory against a second run in it; the system lets go when this process ends, however it ends."""
    if not processes.is_main:
        yield
        return
    refusal = f"another process is at work on {directory}; wait for it, or stop it first"
    with locked((directory / "config.toml").open("rb"), refusal):
        yield


def _take(directory: Path, config: RunConfig, resume: bool, processes: Processes) -> None:
    path = directory / "config.toml"
    if resume:
        if not path.exists():
            raise RunError(f"{directory} holds no run to resume (no config.toml)")
        if load_config(path) != config:
            raise RunError(
                f"{directory} was begun with other settings than these (see its config.toml); "
                "resume it with the same ones, or begin another with --out"
            )
    elif path.exists():
        raise RunError(
            f"{directory} holds a run already; go on with --resume, or choose another --out"
        )
    else:
        refuse_used(directory)
    processes.barrier()
    if processes.is_main and not resume:
        write_settings(path, dump_config(config))


def _free(directory: Path, made: bool) -> None:
    """Remove a run directory, or where the run has not `made` it, what is in it: it was empty before."""
    if made:
        shutil.rmtree(directory)
        return
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
