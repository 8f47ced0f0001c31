"""Messages for a full disk or too little memory: what is kept, which settings to lower, and how to continue."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aang_core.config.settings import RunConfig
from aang_core.errors import AangError, RunError, out_of_disk, out_of_memory
from aang_core.rundir.directory import begun


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
