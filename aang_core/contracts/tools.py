"""What the contract checks share: comparison of records, and a guard over global random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from aang_core.primitives import Primitive, load_factory
from aang_core.protocols import Binding


def expect(holds: bool, record: Primitive, message: str) -> None:
    """:raises AssertionError: that names the primitive, where the contract does not hold."""
    if not holds:
        raise AssertionError(f"{record.stage}:{record.name}: {message}")


def made(record: Primitive, binding: Binding) -> Any:
    """What the record's factory makes, on untouched global random numbers."""
    with quiet(record, "its factory"):
        return load_factory(record.factory)(binding)


def seeded(seed: int) -> torch.Generator:
    """A fresh generator."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def quiet(record: Primitive, what: str) -> Iterator[None]:
    """Nothing inside may touch the global random states of torch, numpy or Python."""
    before = global_states()
    yield
    changed = [name for name, state in global_states().items() if state != before[name]]
    expect(
        not changed,
        record,
        f"expected {what} to draw from the generator that it is given, found that it changed the "
        f"global random state of {', '.join(changed)}",
    )


def global_states() -> dict[str, object]:
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": repr(np.random.get_state(legacy=False)),
        "python": random.getstate(),
    }


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


def expect_same(record: Primitive, one: Any, other: Any, message: str) -> None:
    """:raises AssertionError: `message`, and the fields that differ."""
    found = differences(one, other)
    expect(not found, record, f"{message}, found differences in {', '.join(found[:5])}")
