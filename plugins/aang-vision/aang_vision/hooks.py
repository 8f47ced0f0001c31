"""Images as sequences of patches: primitives, an encoder from random weights, two spaces and the task digits.

Records only; the code lies beside this file.
"""

from __future__ import annotations

from collections.abc import Iterable

from aang_core.registry.hookspecs import hookimpl
from aang_core.registry.records import (
    BackboneKind,
    Block,
    DataSource,
    Output,
    Representation,
    Space,
    TaskKind,
    Transform,
)

MAE = "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022"
DAE = "Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders, ICML 2008"
ROTNET = (
    "Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018"
)
LENET = "Simard et al., Best Practices for Convolutional Neural Networks, ICDAR 2003"
LOCAL = "Ramachandran et al., Stand-Alone Self-Attention in Vision Models, NeurIPS 2019"

_PATCHES = {"backbone:patches"}
_CORRUPTED = {"transform:selection", "transform:aligned"}


@hookimpl
def aang_data_sources() -> Iterable[DataSource]:
    return [
        DataSource(
            name="images",
            summary="Further images without labels, from a file",
            factory="aang_vision.sources:Images",
            requires=_PATCHES,
        )
    ]


@hookimpl
def aang_transforms() -> Iterable[Transform]:
    return [
        Transform(
            name="mask-patches",
            summary="Hide half of the patches",
            factory="aang_vision.transforms:MaskPatches",
            requires=_PATCHES,
            options={"rate": 0.5},
            source=MAE,
        ),
        Transform(
            name="noise-patches",
            summary="Add Gaussian noise to the pixels of half of the patches",
            factory="aang_vision.transforms:NoisePatches",
            requires=_PATCHES,
            options={"rate": 0.5, "std": 0.5},
            source=DAE,
        ),
        Transform(
            name="shift",
            summary="Move the image by up to one pixel",
            factory="aang_vision.transforms:Shift",
            requires=_PATCHES,
            drops=_CORRUPTED,
            options={"pixels": 1},
            source=LENET,
        ),
        Transform(
            name="rotate",
            summary="Turn the image by 0, 90, 180 or 270 degrees",
            factory="aang_vision.transforms:Rotate",
            requires=_PATCHES,
            provides={"transform:rotation"},
            drops=_CORRUPTED,
            source=ROTNET,
        ),
    ]


@hookimpl
def aang_representations() -> Iterable[Representation]:
    return [
        Representation(
            name="neighbourhood",
            summary="A patch sees the patches around it and the position of the whole image",
            factory="aang_vision.representations:Neighbourhood",
            provides={"representation:whole-sequence"},
            requires={"backbone:row-attention"} | _PATCHES,
            options={"reach": 1},
            source=LOCAL,
        )
    ]


@hookimpl
def aang_outputs() -> Iterable[Output]:
    return [
        Output(
            name="patch-denoise",
            summary="Predict the original pixels of each selected patch",
            factory="aang_vision.outputs:PatchDenoise",
            requires=_CORRUPTED | _PATCHES,
            source=MAE,
        ),
        Output(
            name="rotation",
            summary="Tell how far the image was turned",
            factory="aang_vision.outputs:Rotation",
            requires={"transform:rotation", "representation:whole-sequence"} | _PATCHES,
            source=ROTNET,
        ),
    ]


def _space(name: str, summary: str, data: tuple[str, ...]) -> Space:
    """Over the primitives of this package, and those of aang that need no texts."""
    block = Block(
        data=data,
        transform=("no-op", "mask-patches", "noise-patches", "shift", "rotate"),
        representation=("bidirectional", "neighbourhood"),
        output=("end-task", "patch-denoise", "rotation", "contrastive"),
    )
    return Space(name=name, summary=summary, blocks=(block,))


@hookimpl
def aang_spaces() -> Iterable[Space]:
    return [
        _space("vision-td", "The task's own images", ("task",)),
        _space("vision-td+ed", "With further images without labels", ("task", "images")),
    ]


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
