"""Checkpoints: what a run needs to go on as if it had never stopped, and the best model so far.

Tensors are safetensors, the rest is JSON; no pickle. A checkpoint is written beside its place and renamed into it
when it is complete, so that a crash leaves the previous one; every file's checksum is verified before it is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from aang_core.errors import RunError
from aang_core.files import flush, load_tensors, save_tensors, write_text
from aang_core.method.weighting import WeightState
from aang_core.registry.records import STAGES

KEPT = 2
"""Checkpoints kept in a run: the newest, and one to fall back on."""

_TENSORS, _STATE = "tensors.safetensors", "state.json"
_WEIGHTS = ("objectives", "end_task", "norms", "window", "seen")
"""The tensors of a `WeightState` beside those of its stages."""


def named_parameters(body: nn.Module, heads: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter once: a decoder tied to the embeddings goes by the encoder's name."""
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in (("body.", body), ("heads.", heads)):
        for name, parameter in module.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[prefix + name] = parameter
    return found


def named_buffers(body: nn.Module, heads: nn.Module) -> dict[str, Tensor]:
    """What modules keep beside parameters and save with them, such as the running means of batch normalisation."""
    found: dict[str, Tensor] = {}
    for prefix, module in (("body.", body), ("heads.", heads)):
        saved = module.state_dict(keep_vars=True)
        found |= {prefix + n: buffer for n, buffer in module.named_buffers() if n in saved}
    return found


def load_into(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put saved values back into parameters and buffers.

    :raises RunError: where the file is missing or damaged, or holds others.
    """
    saved = load_tensors(path)
    if saved.keys() != tensors.keys():
        odd = sorted(saved.keys() ^ tensors.keys())
        raise RunError(f"{path} does not fit this model: {odd[0]} and {len(odd) - 1} more differ")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])


@attrs.frozen(eq=False)
class Checkpoint:
    """A run between two steps.

    :param tensors: parameters, buffers, optimiser moments, weights and the dev gradient, by prefixed name.
    :param facts: the step, what dev said so far, length and checksum of the history; plain JSON.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write(directory: Path, step: int, checkpoint: Checkpoint) -> None:
    """Write ``step-NNNNNN`` in `directory`; the folder never holds more than `KEPT`, the unfinished one counted.

    What an earlier attempt left unfinished goes first, and so do all but the newest whole ones: a crash or a full disk
    while this one is written leaves those.
    """
    for unfinished in directory.glob(".partial-*"):
        shutil.rmtree(unfinished)
    for old in places(directory)[KEPT - 1 :]:
        shutil.rmtree(old)
    place = directory / f"step-{step:06d}"
    temporary = directory / f".partial-{step:06d}"
    try:
        digest = save_tensors(temporary / _TENSORS, checkpoint.tensors)
        facts = {"tensors": digest, **checkpoint.facts}
        text = json.dumps({"sha256": _digest(facts), "facts": facts}, indent=1)
        write_text(temporary / _STATE, text)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # what could not be finished takes no room
        raise
    if place.exists():
        shutil.rmtree(place)
    temporary.replace(place)
    flush(directory)


def places(directory: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    found = directory.glob("step-*")
    return sorted(found, key=lambda place: (len(place.name), place.name), reverse=True)


def read(place: Path) -> Checkpoint:
    """One checkpoint.

    :raises RunError: where anything in it is not as it was written.
    """
    try:
        state = json.loads((place / _STATE).read_text(encoding="utf-8"))
        facts, expected = state["facts"], state["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise RunError(f"checkpoint {place.name} is damaged ({cause})") from cause
    if _digest(facts) != expected:
        raise RunError(f"checkpoint {place.name} is damaged ({_STATE}: wrong checksum)")
    try:
        tensors = load_tensors(place / _TENSORS, facts["tensors"])
    except (RunError, KeyError, TypeError) as cause:
        raise RunError(f"checkpoint {place.name} is damaged ({cause})") from cause
    return Checkpoint(tensors=tensors, facts=facts)


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def weight_tensors(state: WeightState, prefix: str) -> dict[str, Tensor]:
    """A `WeightState` as named tensors."""
    tensors = {f"{prefix}.stage.{stage}": state.stages[stage] for stage in STAGES}
    for name in _WEIGHTS:
        tensors[f"{prefix}.{name}"] = getattr(state, name)
    tensors[f"{prefix}.steps"] = torch.tensor(state.steps)
    return tensors


def weight_state(tensors: Mapping[str, Tensor], prefix: str) -> WeightState:
    """The inverse of `weight_tensors`."""
    return WeightState(
        stages={stage: tensors[f"{prefix}.stage.{stage}"] for stage in STAGES},
        steps=int(tensors[f"{prefix}.steps"]),
        **{name: tensors[f"{prefix}.{name}"] for name in _WEIGHTS},
    )


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
