"""Errors that a user can repair. The command line prints them as one message and exits with 1.

Also here: how to tell a full disk and too little memory from other faults.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_REFUSED = {errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}
_NATIVE = re.compile(r"os error (\d+)")
"""How libraries in Rust (safetensors, tokenizers) say which system call failed; they raise no `OSError`."""
_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


class AangError(Exception):
    """Base of every error that the user can mend; its text says expected, found, where and what to do."""


class ConfigError(AangError):
    """A run configuration, flag or space file holds something that it cannot."""


class PluginError(AangError):
    """A plugin clashes with another one, fails to import, or returns what its hook does not allow."""


class TaskError(AangError):
    """A task, split or corpus is missing, malformed, or contradicts itself."""


class ModelError(AangError):
    """An encoder cannot be loaded, or cannot do what an objective asks of it."""


class RunError(AangError):
    """A run directory is occupied, unfinished, damaged, or of another version."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: ``; did you mean 'td+ed'?``, or what is known."""
    names = sorted(known)
    if not names:
        return "; there are none"
    return nearest(name, names) or "; known: " + ", ".join(names)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'td+ed'?`` for the nearest known name, or nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_message(faults: Iterable[str], summary: str) -> str:
    """One fault as it is; several under a summary that counts them, a line each."""
    lines = list(faults)
    if len(lines) == 1:
        return lines[0]
    return f"{summary}: {len(lines)} faults\n" + "\n".join(f"  - {line}" for line in lines)


def faults_in(message: str) -> list[str]:
    """Each fault of a message that `one_message` made."""
    _, *lines = message.split("\n")
    if lines and all(line.startswith("  - ") for line in lines):
        return [line.removeprefix("  - ") for line in lines]
    return [message]


def out_of_disk(cause: BaseException, directory: Path | None) -> tuple[str, str] | None:
    """Why a file could not be written, and what to do; None for other faults.

    A file that cannot be reached counts only if it lies in the run's directory.
    """
    number = getattr(cause, "errno", None) or _native_number(cause) or 0
    file = getattr(cause, "filename", None)
    if number not in _FULL and not (number in _REFUSED and _inside(file, directory)):
        return None
    reason = f"cannot write {file or directory or 'a file'}: {os.strerror(number)}"
    return reason, "free some space there" if number in _FULL else "put it back in reach"


def _inside(file: object, directory: Path | None) -> bool:
    if file is None or directory is None:
        return False
    return Path(str(file)).absolute().is_relative_to(directory.absolute())


def out_of_memory(cause: BaseException) -> bool:
    """Whether memory of the processor or of the device could not be had."""
    # by name, for this module loads no torch
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if kinds & {"MemoryError", "OutOfMemoryError"}:
        return True
    said = str(cause).lower()
    known = isinstance(cause, RuntimeError) and any(words in said for words in _MEMORY)
    number = getattr(cause, "errno", None) or _native_number(cause)
    return known or number == errno.ENOMEM


def _native_number(cause: BaseException) -> int | None:
    found = _NATIVE.search(str(cause))
    return int(found[1]) if found else None
