"""The optimiser: AdamW in four groups, the schedule of its learning rates, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import torch
from torch import Tensor, nn

from aang_core.config.settings import Training
from aang_core.errors import ConfigError

_FUSED = {"cpu", "cuda", "mps", "xpu"}
"""Devices with a fused AdamW in every torch that we take."""


def optimizer_for(
    parameters: Mapping[str, nn.Parameter],
    pretrained: Set[str],
    training: Training,
    lr: float = 0.0,
) -> torch.optim.AdamW:
    """AdamW in four groups: pretrained parameters and new ones, with and without weight decay (vectors have none).

    :param pretrained: names of the heads' parameters that train as the encoder's do.
    :param lr: one learning rate for all groups, for the final fine-tuning; 0 for those of `training`.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        known = name.startswith("body.") or name in pretrained
        groups.setdefault((known, parameter.ndim > 1), []).append(parameter)
    tables: list[dict[str, Any]] = []
    for (known, decays), members in groups.items():
        base = lr or (training.lr if known else training.head_lr)
        decay = training.weight_decay if known else training.head_weight_decay
        tables.append(
            {
                "params": members,
                "lr": base,
                "base_lr": base,
                "weight_decay": decay if decays else 0.0,
            }
        )
    betas = (training.beta1, training.beta2)
    return torch.optim.AdamW(tables, betas=betas, fused=fuses(parameters.values()))


def fuses(parameters: Iterable[Tensor]) -> bool:
    """Whether one kernel can update them all: on CUDA a launch in place of dozens, and no pass over memory between."""
    return all(parameter.device.type in _FUSED for parameter in parameters)


def linear_warmup_decay(step: int, total: int, warmup: float) -> float:
    """The factor in [0, 1] that multiplies every learning rate at `step`, as in the paper's public code.

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


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The optimiser's state by parameter name."""
    return {
        f"optimizer.{key}.{name}": torch.as_tensor(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Put back what `optimizer_tensors` gave; the step counter stays where the optimiser keeps it."""
    for name, parameter in parameters.items():
        suffix = f".{name}"
        state = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (value := tensors.get(f"optimizer.{key}{suffix}")) is not None:
                state[key] = value.clone() if key == "step" else value.to(parameter.device).clone()
        if state:
            optimizer.state[parameter] = state
