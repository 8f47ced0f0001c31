"""A stranger's plugin full of faults: primitives that raise, answer in wrong shapes, change their input, and worse."""

from __future__ import annotations

import random

import attrs
import numpy as np
import torch

from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Targets
from aang_core.registry.discovery import Provenance
from aang_core.registry.records import Output, Primitive, Representation, Transform, load_factory
from aang_core.registry.registry import Registered, Registry, load_registry

STRANGER = Provenance(plugin="loud", distribution="aang-loud", version="1.2")


class Masking:
    """The sound transform that the faulty ones begin with."""

    def __init__(self, binding: Binding) -> None:
        self.calls = 0

    def apply(self, packed, generator):
        draw = torch.rand(len(packed.special), generator=generator)
        chosen = (draw < 0.5) & ~packed.special
        first = packed.offsets[:-1] + 1  # every row selects its first word
        chosen[first] = ~packed.special[first]
        return attrs.evolve(packed, selected=chosen)


class Raising(Masking):
    def apply(self, packed, generator):
        raise ZeroDivisionError("by nothing")


class RaisingLater(Masking):
    def apply(self, packed, generator):
        self.calls += 1
        if self.calls > 5:
            raise KeyError("later")
        return super().apply(packed, generator)


class Mutating(Masking):
    def apply(self, packed, generator):
        packed.inputs["input_ids"][0] += 1
        return super().apply(packed, generator)


class Shorter(Masking):
    def apply(self, packed, generator):
        return attrs.evolve(packed, selected=packed.special[:-1])


class NoRecord(Masking):
    def apply(self, packed, generator):
        return packed.inputs


class TorchDice(Masking):
    def apply(self, packed, generator):
        torch.rand(1)
        return super().apply(packed, generator)


class NumpyDice(Masking):
    def apply(self, packed, generator):
        np.random.rand()
        return super().apply(packed, generator)


class PythonDice(Masking):
    def apply(self, packed, generator):
        random.random()
        return super().apply(packed, generator)


class Whimsical(Masking):
    def apply(self, packed, generator):
        self.calls += 1
        return super().apply(packed, torch.Generator().manual_seed(self.calls))


class Unmade:
    def __init__(self, binding: Binding) -> None:
        raise RuntimeError("no licence")


class Narrow:
    tag = "matrix"

    def __init__(self, binding: Binding) -> None:
        pass

    def allowed(self, length, generator):
        return torch.ones(length, length - 1, dtype=torch.bool)


class Untagged(Narrow):
    tag = "sideways"


class Guessing:
    """The sound output that the faulty ones begin with: denoising by the built-in head."""

    def __init__(self, binding: Binding) -> None:
        made = load_factory(load_registry().primitive("denoise").factory)(
            attrs.evolve(binding, options=load_registry().primitive("denoise").options)
        )
        self.inner, self.calls = made, 0
        self.layout, self.min_rows, self.row_multiple = made.layout, 1, 1
        self.pointwise = True

    def targets(self, packed):
        return self.inner.targets(packed)

    def head(self):
        return self.inner.head()

    def losses(self, head, hidden, targets):
        return self.inner.losses(head, hidden, targets)

    def state(self):
        return {}


class Outside(Guessing):
    def targets(self, packed):
        sound = super().targets(packed)
        return attrs.evolve(sound, index=sound.index + len(packed.special))


class Uneven(Guessing):
    def targets(self, packed):
        sound = super().targets(packed)
        return Targets(index=sound.index, value=sound.value[:-1])


class Scalar(Guessing):
    def losses(self, head, hidden, targets):
        return super().losses(head, hidden, targets).mean()


class Headless(Guessing):
    def head(self):
        raise FileNotFoundError("head.bin")


class Overwriting(Guessing):
    def losses(self, head, hidden, targets):
        values = super().losses(head, hidden, targets)
        with torch.no_grad():
            hidden.states.zero_()
        return values


class NotANumber(Guessing):
    """From the third call on; the first two are the trial before the first step."""

    value = float("nan")

    def losses(self, head, hidden, targets):
        values = super().losses(head, hidden, targets)
        self.calls += 1
        return values * self.value if self.calls > 2 else values


class Infinite(NotANumber):
    value = float("inf")


class Hungry(Guessing):
    """Asks for more memory than any machine has, in the fifth step."""

    def losses(self, head, hidden, targets):
        self.calls += 1
        if self.calls > 6:
            torch.empty(1 << 60, dtype=torch.uint8)
        return super().losses(head, hidden, targets)


def _transform(name: str) -> Transform:
    return Transform(name=name, summary="", factory=f"_faulty:{_class_of(name)}")


def _output(name: str) -> Output:
    return Output(
        name=name,
        summary="",
        factory=f"_faulty:{_class_of(name)}",
        requires=frozenset({"transform:selection", "transform:aligned"}),
    )


def _class_of(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _representation(name: str) -> Representation:
    return Representation(name=name, summary="", factory=f"_faulty:{_class_of(name)}")


TRANSFORMS = (
    *("raising", "raising-later", "mutating", "shorter", "no-record", "torch-dice", "numpy-dice"),
    *("python-dice", "whimsical", "unmade"),
)
REPRESENTATIONS = ("narrow", "untagged")
OUTPUTS = (
    *("outside", "uneven", "scalar", "headless", "overwriting", "not-a-number", "infinite"),
    "hungry",
)


def registry_with(name: str) -> Registry:
    """The installed plugins and, from a distribution of its own, one faulty primitive."""
    kinds = {
        **dict.fromkeys(TRANSFORMS, _transform),
        **dict.fromkeys(REPRESENTATIONS, _representation),
        **dict.fromkeys(OUTPUTS, _output),
    }
    record: Primitive = kinds[name](name)
    registry = load_registry()
    entry = Registered(record=record, provenance=STRANGER)
    return attrs.evolve(registry, primitives={**registry.primitives, name: entry})
