"""Checkpoints: everything a run needs to continue as if it had never stopped, and the choice of one to resume from.

Tensors are safetensors, the rest is JSON; no pickle. A checkpoint is written under a temporary name and renamed
when it is complete, so a crash leaves the previous one; every file's checksum is verified before it is used.
Generators need no saving: every random number follows from the seed and the step (`aang_core.randomness`).
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
from torch import Tensor

from aang_core.config.settings import AUTO
from aang_core.errors import RunError
from aang_core.files import flush, load_tensors, save_tensors, write_text
from aang_core.method.gradient.metagrad import Gradient
from aang_core.method.gradient.row_gradients import coalesced, of_rows, values
from aang_core.method.weights.weighting import WeightState
from aang_core.registry.records import STAGES
from aang_core.train.callbacks import Progress
from aang_core.train.optimizer import optimizer_tensors, restore_optimizer
from aang_core.train.session import Session

KEPT = 2
"""Checkpoints kept in a run: the newest, and one to fall back on."""

BEST, SEARCHED = "best.safetensors", "searched.safetensors"
"""What dev chose; and the same before the final fine-tuning, which may replace it."""

_TENSORS, _STATE = "tensors.safetensors", "state.json"
_WEIGHTS = ("objectives", "end_task", "norms", "window", "seen")
"""The tensors of a `WeightState` beside those of its stages."""


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

    First remove what an earlier attempt left unfinished, and all but the newest complete ones. A crash or a full disk
    during writing leaves those.
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
    """The checkpoints in a folder, newest first."""
    found = directory.glob("step-*")
    return sorted(found, key=lambda place: (len(place.name), place.name), reverse=True)


def read(place: Path) -> Checkpoint:
    """One checkpoint.

    :raises RunError: if anything in it differs from what was written.
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


def snapshot(
    session: Session,
    progress: Progress,
    history: Path,
    kept: Any,
    states: Mapping[str, Mapping[str, Any]],
) -> Checkpoint:
    """Everything that the coming steps depend on.

    :param history: ``history.jsonl`` as it is at this step.
    :param kept: remarks, engine and the like; JSON, which comes back unchanged.
    :param states: of callbacks by name, each of tensors and JSON.
    :raises RunError: where a callback's state holds something else.
    """
    tensors = {name: t.detach() for name, t in session.trained_tensors.items()}
    tensors |= optimizer_tensors(session.optimizer, session.parameters)
    tensors |= weight_tensors(session.weights, "weights")
    tensors |= weight_tensors(session.planned, "planned")
    tensors |= _dev_tensors(session.dev_gradient or {})
    for name, value in (session.dev.memory if session.dev else {}).items():
        tensors[f"direction.{name}"] = value
    if session.fork is not None:
        tensors |= {f"fork.{name}": value for name, value in session.fork.tensors().items()}
    if session.slow is not None:
        tensors |= {f"slow.{name}": value for name, value in session.slow.mean.items()}
    for number, memory in (session.teacher.memories if session.teacher else {}).items():
        tensors |= {f"memory.{number}.{name}": value for name, value in memory.items()}
    for source, memory in (session.refresher.memories if session.refresher else {}).items():
        tensors |= {f"source.{source}.{name}": value.clone() for name, value in memory.items()}
    callbacks: dict[str, dict[str, Any]] = {name: {} for name in states}
    for name, state in states.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"callback.{name}.{key}"] = value.detach().clone()
            else:
                callbacks[name][key] = _json(value, f"the state of the callback {name}, {key!r}")
    flush(history)  # a checkpoint must not be there without the steps that led to it
    size = history.stat().st_size
    facts = {
        "progress": attrs.asdict(progress),
        "history": {"bytes": size, "sha256": _digest_of(history, size)},
        "kept": kept,
        "callbacks": callbacks,
        "slow_steps": session.slow.steps if session.slow else 0,
        "rule": session.config.meta.rule,
    }
    return Checkpoint(tensors=tensors, facts=facts)


def _json(value: Any, what: str) -> Any:
    """The value, if JSON preserves it."""
    try:
        if json.loads(json.dumps(value)) == value:
            return value
    except (TypeError, ValueError):
        pass
    raise RunError(f"{what}: expected a tensor or what JSON gives back unchanged, found {value!r}")


def callback_states(saved: Checkpoint) -> dict[str, dict[str, Any]]:
    """The states that `snapshot` was given, their tensors on the CPU."""
    found = {name: dict(state) for name, state in saved.facts.get("callbacks", {}).items()}
    for name, state in found.items():
        prefix = f"callback.{name}."
        state |= {
            k.removeprefix(prefix): t for k, t in saved.tensors.items() if k.startswith(prefix)
        }
    return found


def restore(session: Session, saved: Checkpoint) -> Progress:
    """Put a snapshot back into a freshly built session of the same configuration.

    :raises RunError: where the model has other parameters now, or where weights would cease to learn.
    """
    meta, tensors = session.config.meta, session.trained_tensors
    if "rule" not in saved.facts and (session.config.method, meta.rule) == ("aang", AUTO):
        raise RunError(
            "this run was begun by a version in which weights learned by default, and would go on with weights that "
            'rest; write rule = "aang" under [meta] in its config.toml, and it goes on as it began'
        )
    if lacking := sorted(tensors.keys() - saved.tensors.keys()):
        raise RunError(
            f"the checkpoint does not fit this model: it lacks {lacking[0]} and {len(lacking) - 1} more; "
            "it was written by another version of aang or of the encoder"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(saved.tensors[name])
    restore_optimizer(session.optimizer, session.parameters, saved.tensors)
    session.weights = weight_state(saved.tensors, "weights")
    session.planned = weight_state(saved.tensors, "planned")
    session.dev_gradient = _dev_gradient(session, saved.tensors)
    if session.dev is not None:
        session.dev.memory = {
            name: saved.tensors[f"direction.{name}"].to(session.device)
            for name in session.dev.memory
        }
    if session.fork is not None:
        own = {
            n.removeprefix("fork."): t for n, t in saved.tensors.items() if n.startswith("fork.")
        }
        session.fork.load(own)
    _restore_teacher(session, saved)
    return Progress.read(saved.facts["progress"])


def _dev_tensors(dev_gradient: Gradient) -> dict[str, Tensor]:
    """V, of an embedding by rows their values and their numbers."""
    found = {f"dev.{name}": values(gradient) for name, gradient in dev_gradient.items()}
    by_row = {name: gradient for name, gradient in dev_gradient.items() if gradient.is_sparse}
    return found | {f"dev-rows.{name}": g.indices()[0] for name, g in by_row.items()}


def _dev_gradient(session: Session, tensors: Mapping[str, Tensor]) -> Gradient | None:
    """V in the encoder's own order, as it was made: the order of a sum shows in its last bit."""
    found = {}
    for name, parameter in session.model.body().items():
        if (value := tensors.get(f"dev.{name}")) is not None:
            if (rows := tensors.get(f"dev-rows.{name}")) is not None:
                value = coalesced(of_rows(rows, value, len(parameter)))
                value = value if session.device.type == "cpu" else value.to_dense()
            found[name] = value.to(session.device)
    return found or None


def _restore_teacher(session: Session, saved: Checkpoint) -> None:
    """The slow copy, and what outputs and data sources that asked it remember."""
    if session.slow is not None:
        mean = {name: saved.tensors[f"slow.{name}"] for name in session.slow.mean}
        session.slow.load(mean, saved.facts["slow_steps"])
    if session.teacher is not None:
        session.teacher.memories = {
            number: {
                name: saved.tensors[f"memory.{number}.{name}"].to(session.device) for name in memory
            }
            for number, memory in session.teacher.memories.items()
        }
    if session.refresher is not None:
        session.refresher.restore(
            {
                source: {name: saved.tensors[f"source.{source}.{name}"] for name in memory}
                for source, memory in session.refresher.memories.items()
            }
        )


@attrs.frozen(eq=False)
class Found:
    """What a seed can resume from.

    :param saved: the newest complete checkpoint with all its files; None to start again.
    :param remarks: what is damaged, and what is used instead.
    :param spoilt: damaged files and folders, to be removed.
    """

    saved: Checkpoint | None
    remarks: tuple[str, ...]
    spoilt: tuple[Path, ...]


def newest(directory: Path) -> Found:
    """Find the checkpoint to resume from in a seed's directory; changes nothing."""
    folder = directory / "checkpoint"
    faults: list[str] = []
    spoilt: list[Path] = []
    for name in (SEARCHED, BEST):
        if (folder / name).exists() and (fault := _fault(folder / name)):
            faults.append(fault)
            # a final fine-tuning may have replaced the best parameters that `searched` was a copy of
            spoilt += [folder / SEARCHED, folder / BEST]
    for place in places(folder):
        try:
            saved = read(place)
            _check_company(saved.facts, directory, spoilt)
        except (RunError, KeyError) as cause:
            older = f"checkpoint {place.name} was written by another version of aang (no {cause})"
            faults.append(str(cause) if isinstance(cause, RunError) else older)
            spoilt.append(place)
        else:
            end = f"the run goes on from checkpoint {place.name}"
            return Found(saved, tuple(f"{fault}; {end}" for fault in faults), tuple(spoilt))
    end = "no checkpoint before it is whole, so the seed begins again"
    return Found(None, tuple(f"{fault}; {end}" for fault in faults), tuple(spoilt))


def discard(directory: Path) -> None:
    """Remove what only an unfinished run needs from a seed's directory."""
    folder = directory / "checkpoint"
    remove((*places(folder), *folder.glob(".*partial*"), folder / SEARCHED))


def remove(spoilt: tuple[Path, ...]) -> None:
    """Remove these files and folders."""
    for path in spoilt:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _fault(path: Path) -> str:
    try:
        load_tensors(path)
    except RunError as cause:
        return str(cause)
    return ""


def _check_company(facts: Mapping[str, Any], directory: Path, spoilt: list[Path]) -> None:
    """:raises RunError: if the files that a checkpoint refers to have changed."""
    history, recorded = directory / "history.jsonl", facts["history"]
    if _digest_of(history, recorded["bytes"]) != recorded["sha256"]:
        raise RunError(f"{history} was changed after step {facts['progress']['done']}")
    best = directory / "checkpoint" / BEST
    if facts["progress"]["best_score"] is not None and (best in spoilt or not best.exists()):
        raise RunError(f"step {facts['progress']['done']} needs {best}, which is lost")


def _digest_of(path: Path, size: int) -> str:
    """The sha256 of a file's first `size` bytes; empty if it is shorter or missing."""
    try:
        with path.open("rb") as file:
            data = file.read(size)
    except OSError:
        return ""
    return hashlib.sha256(data).hexdigest() if len(data) == size else ""


def weight_tensors(state: WeightState, prefix: str) -> dict[str, Tensor]:
    """A `WeightState` as named tensors that share no memory."""
    tensors = {f"{prefix}.stage.{stage}": state.stages[stage] for stage in STAGES}
    for name in _WEIGHTS:
        tensors[f"{prefix}.{name}"] = getattr(state, name)
    tensors[f"{prefix}.steps"] = torch.tensor(state.steps)
    tensors |= {f"{prefix}.memory.{name}": value for name, value in state.memory.items()}
    return {name: value.clone() for name, value in tensors.items()}  # some may be one tensor


def weight_state(tensors: Mapping[str, Tensor], prefix: str) -> WeightState:
    """The inverse of `weight_tensors`."""
    own = f"{prefix}.memory."
    return WeightState(
        memory={n.removeprefix(own): tensors[n] for n in sorted(tensors) if n.startswith(own)},
        stages={stage: tensors[f"{prefix}.stage.{stage}"] for stage in STAGES},
        steps=int(tensors[f"{prefix}.steps"]),
        **{name: tensors[f"{prefix}.{name}"] for name in _WEIGHTS},
    )
