"""The learning-rate schedule: linear warm-up, then linear decay to zero, as in the paper's public code."""

from __future__ import annotations

from aang_core.errors import ConfigError


def linear_warmup_decay(step: int, total: int, warmup: float) -> float:
    """The factor in [0, 1] that multiplies every learning rate at `step`.

    It rises by equal amounts to 1 over the first ``round(warmup · total)`` steps, whose first one
    already moves, then falls to 0 at `total`, which is after the last step; 0 from there on.

    :param step: steps done so far, from 0.
    :param total: steps of the whole run.
    :param warmup: share of `total`, in [0, 1]; 0.06 in the public code.
    :raises ConfigError: for a negative step, a run without steps, or a warm-up outside [0, 1].

    >>> [linear_warmup_decay(step, 4, 0.5) for step in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < 0 or total < 1 or not 0.0 <= warmup <= 1.0:
        raise ConfigError(
            "a schedule needs step >= 0, total >= 1 and warmup in [0, 1]; "
            f"found step={step}, total={total}, warmup={warmup}"
        )
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if step >= total:
        return 0.0
    return (total - step) / (total - rising)
