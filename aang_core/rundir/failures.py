"""When a machine runs out of disk or memory under way: what is kept, what to lower, and how to go on."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from aang_core.config.settings import RunConfig
from aang_core.errors import AangError, RunError
from aang_core.rundir.directory import begun

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_REFUSED = {errno.EIO, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}
_NATIVE = re.compile(r"os error (\d+)")
"""How libraries in Rust (safetensors, tokenizers) say which system call failed; they raise no `OSError`."""
_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


@contextmanager
def explained(config: RunConfig, directory: Path | None = None) -> Iterator[None]:
    """Turn a full disk or exhausted memory inside the block into a message; everything else passes.

    :param directory: the run's, where there is one.
    :raises RunError: what happened, what is kept and what to do.
    """
    try:
        yield
    except AangError:
        raise
    except Exception as cause:
        if found := out_of_disk(cause, directory):
            reason, remedy = found
            raise RunError(f"{reason}. {_way_on(directory, remedy)}") from cause
        if out_of_memory(cause):
            raise RunError(_lower(config, directory, cause)) from cause
        raise


def out_of_disk(cause: BaseException, directory: Path | None) -> tuple[str, str] | None:
    """Why a file could not be written, and what to do; None where it is another matter.

    A file that is out of reach is the run's matter only where it lies in its directory.
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
    if isinstance(cause, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(cause).lower()
    known = isinstance(cause, RuntimeError) and any(words in said for words in _MEMORY)
    number = getattr(cause, "errno", None) or _native_number(cause)
    return known or number == errno.ENOMEM


def _native_number(cause: BaseException) -> int | None:
    found = _NATIVE.search(str(cause))
    return int(found[1]) if found else None


def _way_on(directory: Path | None, then: str) -> str:
    if directory is None or not begun(directory):
        return f"{then.capitalize()}, and begin again"
    command = f"aang run --resume --out {shlex.quote(str(directory))}"
    return f"What was written before is whole: {then}, and go on with\n  {command}"


def _lower(config: RunConfig, directory: Path | None, cause: BaseException) -> str:
    """Which settings to lower, the one that changes least of the run first."""
    training = config.training
    step = (training.end_task_rows + training.auxiliary_rows) * training.max_length
    budget = max(training.max_length, (training.micro_batch_tokens or step) // 2)
    now = training.micro_batch_tokens or "0, no bound"
    first = str(cause).strip().splitlines() or [type(cause).__name__]
    text = (
        f"out of memory ({first[0][:160]}). Lower training.micro_batch_tokens to {budget} or less (now {now}): the "
        "result stays the same but for rounding. If that does not help, lower training.max_length (now "
        f"{training.max_length}) or training.auxiliary_rows (now {training.auxiliary_rows}), or set "
        "training.activation_checkpointing = true"
    )
    if directory is None or not begun(directory):
        return f"{text}; then begin again"
    file = directory / "config.toml"
    return f"{text}. {_way_on(directory, f'change it in {file}')}"
