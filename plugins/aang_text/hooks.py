"""Primitives for texts, the Hugging Face encoders, the named spaces and the sample tasks.

Records only; the code lies beside this file.
"""

from __future__ import annotations

from collections.abc import Iterable

from aang_core.registry.hookspecs import hookimpl
from aang_core.registry.records import (
    BackboneKind,
    DataSource,
    NamedObjective,
    Output,
    Representation,
    Space,
    TaskKind,
    Transform,
)
from aang_text.records import DATA_SOURCES, OUTPUTS, REPRESENTATIONS, TRANSFORMS
from aang_text.spaces import NAMED_OBJECTIVES, SPACES


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
def aang_named_objectives() -> Iterable[NamedObjective]:
    return NAMED_OBJECTIVES


@hookimpl
def aang_backbones() -> Iterable[BackboneKind]:
    return [
        BackboneKind(
            name="huggingface",
            summary="Encoders of transformers: hub ids, folders, bundled: and scratch: names",
            factory="aang_text.encoder.backbone:load",
            predictor="aang_text.encoder.exported:load_predictor",
            onnx="aang_text.encoder.onnx_export:export_onnx",
            check="aang_text.encoder.checkpoint:bundled_findings",
            prefixes=("bundled:", "scratch:"),
            fallback=True,
            default_model="bundled:minilm",
            reads=("text", "text_pair", "tags"),
            training_only=("tags",),
            capabilities={"backbone:row-attention", "backbone:dropout", "backbone:vocabulary"},
            source="Wolf et al., Transformers, EMNLP 2020 (demonstrations)",
        )
    ]


@hookimpl
def aang_tasks() -> Iterable[TaskKind]:
    return [
        TaskKind(
            name="sample",
            summary="Docstrings of the standard library by the part of it they come from",
            factory="aang_text.data.sample:load",
            model="bundled:minilm",
            source="The Python standard library's own documentation",
        ),
        TaskKind(
            name="sample-all",
            summary="The same with all its training labels, for --train-rows",
            factory="aang_text.data.sample:load_all",
            model="bundled:minilm",
            source="The Python standard library's own documentation",
        ),
    ]
