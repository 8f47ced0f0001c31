"""Checkpoints: what a run needs to go on as if it had never stopped, and the best model so far.

Tensors are safetensors, the rest is JSON; no pickle. A checkpoint is written beside its place and renamed into it
when it is complete, so that a crash leaves the previous one; its checksum is verified before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aang_core.errors import RunError
from aang_core.primitives import STAGES
from aang_core.weighting import WeightState

KEPT = 2
"""Checkpoints kept in a run: the newest, and one to fall back on."""


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


def save_parameters(path: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Write the values of parameters to a safetensors file, completely or not at all."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    temporary = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, temporary)
    _flush(temporary)
    temporary.replace(path)


def load_parameters(path: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put saved values back into parameters.

    :raises RunError: where the file is missing or damaged, or holds other parameters.
    """
    tensors = _read_tensors(path)
    if tensors.keys() != parameters.keys():
        odd = sorted(tensors.keys() ^ parameters.keys())
        raise RunError(f"{path} does not fit this model: {odd[0]} and {len(odd) - 1} more differ")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


@attrs.frozen(eq=False)
class Checkpoint:
    """A run between two steps.

    :param tensors: parameters, optimiser moments, weights and the dev gradient, by prefixed name.
    :param facts: the step, what dev said so far, the length of the history; plain JSON.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write(directory: Path, step: int, checkpoint: Checkpoint) -> None:
    """Write ``step-NNNNNN`` in `directory`, then remove all but the newest `KEPT`."""
    place = directory / f"step-{step:06d}"
    temporary = directory / f".partial-{step:06d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {n: t.detach().cpu().contiguous() for n, t in checkpoint.tensors.items()}
    save_file(tensors, temporary / "tensors.safetensors")
    digest = _digest(temporary / "tensors.safetensors")
    text = json.dumps({"sha256": digest, **checkpoint.facts}, indent=1)
    (temporary / "state.json").write_text(text, encoding="utf-8")
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    shutil.rmtree(place, ignore_errors=True)
    temporary.replace(place)
    for old in sorted(directory.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def read_newest(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a remark on each newer one that is damaged."""
    remarks: list[str] = []
    for place in sorted(directory.glob("step-*"), reverse=True):
        try:
            return _read(place), remarks
        except RunError as cause:
            remarks.append(f"{cause}; the one before it is used")
    return None, remarks


def _read(place: Path) -> Checkpoint:
    path = place / "tensors.safetensors"
    try:
        facts = json.loads((place / "state.json").read_text(encoding="utf-8"))
        expected = facts.pop("sha256")
        found = _digest(path)
    except (OSError, ValueError, KeyError, AttributeError) as cause:
        raise RunError(f"checkpoint {place.name} is damaged ({cause})") from cause
    if found != expected:
        raise RunError(f"checkpoint {place.name} is damaged (its checksum does not match)")
    return Checkpoint(tensors=_read_tensors(path), facts=facts)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as cause:
        raise RunError(f"{path} cannot be read ({cause})") from cause


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def weight_tensors(state: WeightState, prefix: str) -> dict[str, Tensor]:
    """A `WeightState` as named tensors."""
    tensors = {f"{prefix}.stage.{stage}": state.stages[stage] for stage in STAGES}
    for name in ("objectives", "end_task", "norms", "window", "seen"):
        tensors[f"{prefix}.{name}"] = getattr(state, name)
    tensors[f"{prefix}.steps"] = torch.tensor(state.steps)
    return tensors


def weight_state(tensors: Mapping[str, Tensor], prefix: str) -> WeightState:
    """The inverse of `weight_tensors`."""
    return WeightState(
        stages={stage: tensors[f"{prefix}.stage.{stage}"] for stage in STAGES},
        steps=int(tensors[f"{prefix}.steps"]),
        **{
            n: tensors[f"{prefix}.{n}"]
            for n in ("objectives", "end_task", "norms", "window", "seen")
        },
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
