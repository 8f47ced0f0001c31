"""Shared by the checks of all stages: expectations that name the primitive, and a guard over global randomness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from aang_core.batch.checks import BrokenContract
from aang_core.batch.protocols import Binding
from aang_core.check.purity import differences, global_states
from aang_core.registry.records import Primitive, load_factory


def expect(holds: bool, record: Primitive, message: str) -> None:
    """:raises AssertionError: that names the primitive, where the contract does not hold."""
    if not holds:
        raise AssertionError(f"{record.stage}:{record.name}: {message}")


@contextmanager
def well_formed(record: Primitive) -> Iterator[None]:
    """For the checks of `aang_core.batch.checks`, which every run makes at every call.

    :raises AssertionError: where they find a broken contract.
    """
    try:
        yield
    except BrokenContract as broken:
        raise AssertionError(f"{record.stage}:{record.name}: {broken}") from broken


def made(record: Primitive, binding: Binding) -> Any:
    """What the record's factory makes, on untouched global random numbers."""
    factory = load_factory(record.factory)  # importing a library may draw, which no run can notice
    with quiet(record, "its factory"):
        return factory(binding)


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


def expect_same(record: Primitive, one: Any, other: Any, message: str) -> None:
    """:raises AssertionError: `message`, and the fields that differ."""
    found = differences(one, other)
    expect(not found, record, f"{message}, found differences in {', '.join(found[:5])}")
