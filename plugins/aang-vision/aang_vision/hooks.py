"""Images as sequences of patches: primitives, an encoder from random weights, two spaces and the task digits.

Records only; the code lies beside this file.
"""

from __future__ import annotations

from collections.abc import Iterable

from aang_core.registry.hookspecs import hookimpl
from aang_core.registry.records import (
    BackboneKind,
    DataSource,
    Output,
    Representation,
    Space,
    TaskKind,
    Transform,
)
from aang_vision.records import DATA_SOURCES, OUTPUTS, REPRESENTATIONS, SPACES, TRANSFORMS


@hookimpl
def aang_data_sources() -> Iterable[DataSource]:
    return DATA_SOURCES


@hookimpl
def aang_transforms() -> Iterable[Transform]:
    return TRANSFORMS


@hookimpl
def aang_representations() -> Iterable[Representation]:
    return REPRESENTATIONS


@hookimpl
def aang_outputs() -> Iterable[Output]:
    return OUTPUTS


@hookimpl
def aang_spaces() -> Iterable[Space]:
    return SPACES


@hookimpl
def aang_backbones() -> Iterable[BackboneKind]:
    return [
        BackboneKind(
            name="patches",
            summary="Small transformers over the patches of 8×8 images: patches:tiny, patches:small",
            factory="aang_vision.backbone:load",
            predictor="aang_vision.exported:load_predictor",
            prefixes=("patches:",),
            reads=("image",),
            readers={".npy": "aang_vision.sources:read_array"},
            capabilities={"backbone:row-attention", "backbone:dropout", "backbone:patches"},
            source="Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021",
        )
    ]


@hookimpl
def aang_tasks() -> Iterable[TaskKind]:
    return [
        TaskKind(
            name="digits",
            summary="Handwritten digits of 8×8 pixels, from scikit-learn",
            factory="aang_vision.sources:digits",
            model="patches:tiny",
            source="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998",
        )
    ]
