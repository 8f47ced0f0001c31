"""Tools to check whether a call was pure: copies to compare with, differences, and the global random states."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor


def frozen_copy(value: Any) -> Any:
    """A deep copy of a record, its tensors cloned."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {key: frozen_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [frozen_copy(item) for item in value]
    if attrs.has(type(value)):
        fields = [a.name for a in attrs.fields(type(value))]
        return attrs.evolve(value, **{name: frozen_copy(getattr(value, name)) for name in fields})
    return value


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """The fields in which two records differ; tensors must be equal in every bit but NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and one.equal(other)
        return [] if same else [where]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other})
        return [d for k in keys for d in differences(one.get(k), other.get(k), f"{where}[{k}]")]
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        if len(one) != len(other):
            return [where]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{where}[{i}]")]
    if attrs.has(type(one)) and type(one) is type(other):
        names = [a.name for a in attrs.fields(type(one))]
        return [
            d
            for n in names
            for d in differences(getattr(one, n), getattr(other, n), f"{where}.{n}")
        ]
    return [] if type(one) is type(other) and one == other else [where]


def global_states() -> dict[str, object]:
    """The states of the global random generators, by library; equal ones are equal."""
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": repr(np.random.get_state(legacy=False)),
        "python": random.getstate(),
    }
