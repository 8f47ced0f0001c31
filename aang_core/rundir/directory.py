"""A job's directory: take it before the first step, lock it while the job runs, remove it if the job leaves nothing.

Every job takes its directory through `JobDirectory`. Runs, selections, sweeps and experiments differ only in the file
that marks a directory as theirs, and in the content of that file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.file import dump_config, load_config
from aang_core.config.settings import RunConfig
from aang_core.errors import AangError, RunError
from aang_core.files import flush, toml_of
from aang_core.processes import Processes

_LONGEST_NAME = 100
_PARTIAL = ".*.partial"
"""A file that a killed process has left behind; it is no content."""
_WORTH = ("history.jsonl", "results.json", "*.safetensors")
"""Files that took work to make."""


def seed_folder(seed: int | str) -> str:
    """What the folder of one seed is called, beside those of others; of ``*`` the pattern of all."""
    return f"seed-{seed}"


def seed_directory(directory: Path, seeds: Sequence[int], seed: int) -> Path:
    """Where one seed's files lie: the run directory itself, or ``seed-N`` in it where there are several."""
    return directory if len(seeds) == 1 else directory / seed_folder(seed)


def unused_directory(parent: str, parts: Sequence[str]) -> Path:
    """``PARENT/A-B-C`` without the parts that are empty, and with a number behind it where that is taken."""
    # a task's name is anything that its file says: a path, line ends, a thousand letters
    joined = "-".join(filter(None, parts))
    name = re.sub(r"[^\w.+-]+", "-", joined).lstrip(".-")[-_LONGEST_NAME:]
    base = Path(parent) / name
    taken = (base.with_name(f"{base.name}-{n}") for n in range(2, 100_000))
    return base if not base.exists() else next(place for place in taken if not place.exists())


def begun(directory: Path) -> bool:
    """Whether the job in a directory has come far enough to be continued."""
    return any(True for name in _WORTH for _ in directory.rglob(name))


def _as_written(mark: Path) -> str:
    return mark.read_text(encoding="utf-8")


@attrs.frozen(kw_only=True)
class JobDirectory:
    """Where one job writes: nothing that is there is ever overwritten, and no second job enters meanwhile.

    :param path: where it lies, or will lie.
    :param what: the job in one word, for messages: ``run``, ``selection``, …
    :param mark: the file that makes a directory the job's own; whoever is at work holds its lock.
    :param text: what the mark holds, the job's settings as TOML; empty where they cannot be compared as a whole.
    :param read: a mark → its settings as `text` would say them, whatever version has written them.
    :param known: names that show such a directory as well, of versions that wrote no mark.
    """

    path: Path
    what: str
    mark: str
    text: str = ""
    read: Callable[[Path], str] = _as_written
    known: Sequence[str] = ()

    @property
    def is_begun(self) -> bool:
        """Whether a job of this kind has taken the directory before."""
        return any((self.path / name).exists() for name in (self.mark, *self.known))

    def check(self, resume: bool) -> None:
        """Refuse what `taken` would refuse, but for a job that is at work; nothing is changed.

        :raises RunError: where the directory holds something else, a job already, or with `resume` none, or one with
            other settings; names each that differs.
        """
        here = self.path
        if resume:
            if not self.is_begun:
                raise RunError(f"{here} holds no {self.what} to resume (no {self.mark})")
            if self.text and (differing := self._differing()):
                raise RunError(
                    f"{here} was begun with other settings (see its {self.mark}): {'; '.join(differing)}; resume it "
                    "with the same ones, or begin another with another --out"
                )
        elif self.is_begun:
            raise self._occupied()
        elif here.exists() and not (
            here.is_dir() and all(entry.match(_PARTIAL) for entry in here.iterdir())
        ):
            raise RunError(
                f"{here} exists, is no {self.what}'s directory and is not an empty folder; choose another --out"
            )

    def defaulted(self) -> list[str]:
        """Each setting that the mark does not name, since a version without it wrote the mark, and its value here."""
        named = _dotted(toml_of(_as_written(self.path / self.mark)))
        here = _dotted(toml_of(self.text))
        return [f"{key} = {value!r}" for key, value in here.items() if key not in named]

    @contextmanager
    def taken(self, resume: bool, processes: Processes | None = None) -> Iterator[None]:
        """Take the directory for the block, or refuse. One process takes it for all that share the job.

        Where a mendable error ends a new job before anything came of it, all that it made is removed again; a folder
        that was there before stays.

        :raises RunError: as in `check`, where another process is at work on it, or it cannot be written to.
        """
        processes = processes or Processes()
        made = not self.path.exists()
        self.check(resume)
        processes.barrier()
        if not processes.is_main:
            yield
            return
        if not (self.path / self.mark).exists():
            self._write_mark()
        with self._held():
            try:
                yield
            except AangError:
                there = (self.path / self.mark).is_file()  # and not taken away meanwhile
                if not resume and there and not begun(self.path):
                    self._free(made)
                raise

    def _occupied(self) -> RunError:
        a = "an" if self.what[0] in "aeio" else "a"
        return RunError(
            f"{self.path} holds {a} {self.what} already; go on with --resume, or choose another --out"
        )

    def _differing(self) -> list[str]:
        """Each setting that is not what the mark says."""
        here = _dotted(toml_of(self.text))
        there = _dotted(toml_of(self.read(self.path / self.mark)))
        absent = "not set"
        return [
            f"{key} is {here.get(key, absent)!r} here and {there.get(key, absent)!r} there"
            for key in {**here, **there}
            if here.get(key, absent) != there.get(key, absent)
        ]

    def _write_mark(self) -> None:
        """Write the mark whole or not at all; of two jobs that begin at once, one gets there.

        :raises RunError: where it cannot be written, or another job was faster.
        """
        mark = self.path / self.mark
        temporary = self.path / f".{self.mark}-{os.getpid()}.partial"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.text, encoding="utf-8")
            flush(temporary)
            try:
                os.link(temporary, mark)  # unlike a renaming, it replaces nothing
            except (FileExistsError, FileNotFoundError):
                raise self._occupied() from None
            except OSError:  # a file system without links
                temporary.replace(mark)
            for left in self.path.glob(_PARTIAL):
                left.unlink(missing_ok=True)
            flush(self.path)
        except OSError as cause:
            raise self._unwritable(cause) from cause

    def _unwritable(self, cause: OSError) -> RunError:
        place = self.path / self.mark
        return RunError(f"cannot write {place}: {cause.strerror}; choose another --out")

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the mark's lock; the system lets go when this process ends, however it ends.

        On a file system without locks nothing is held.
        """
        mark = self.path / self.mark
        try:
            file = mark.open("r+b")  # NFS gives locks only to who may write
        except OSError as cause:
            raise self._unwritable(cause) from cause
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as cause:
                if cause.errno == errno.EWOULDBLOCK:
                    raise RunError(
                        f"another process is at work on {self.path}; wait for its end, or stop it first"
                    ) from cause
            # the job before may have freed it between opening and locking
            if not os.fstat(file.fileno()).st_nlink:
                raise RunError(f"{self.path} holds no {self.what} any more; begin it again")
            yield

    def _free(self, made: bool) -> None:
        """Remove the directory, or where the job has not `made` it, what is in it: it was empty before."""
        if made:
            shutil.rmtree(self.path)
            return
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def run_directory(path: Path, config: RunConfig) -> JobDirectory:
    """The directory of a run with these settings."""
    return JobDirectory(
        path=path,
        what="run",
        mark="config.toml",
        text=dump_config(config),
        read=lambda mark: dump_config(load_config(mark)),
    )


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of nested tables by dotted key."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = isinstance(value, Mapping) and value
        found |= _dotted(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found
