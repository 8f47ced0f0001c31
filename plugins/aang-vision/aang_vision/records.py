"""The records of the plugin: primitives and spaces. The code lies beside.

The spaces also name primitives from aang that need no texts: the data source ``task``, the transform
``no-op``, the representation ``bidirectional``, the outputs ``end-task`` and ``contrastive``.
"""

from __future__ import annotations

from aang_core.registry.records import Block, DataSource, Output, Representation, Space, Transform

MAE = "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022"
DAE = "Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders, ICML 2008"
ROTNET = (
    "Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018"
)
LENET = "Simard et al., Best Practices for Convolutional Neural Networks, ICDAR 2003"
LOCAL = "Ramachandran et al., Stand-Alone Self-Attention in Vision Models, NeurIPS 2019"

_PATCHES = {"backbone:patches"}
_CORRUPTED = {"transform:selection", "transform:aligned"}

DATA_SOURCES = (
    DataSource(
        name="images",
        summary="Further images without labels, from a file",
        factory="aang_vision.sources:Images",
        requires=_PATCHES,
    ),
)

TRANSFORMS = (
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
)

REPRESENTATIONS = (
    Representation(
        name="neighbourhood",
        summary="A patch sees the patches around it and the position of the whole image",
        factory="aang_vision.representations:Neighbourhood",
        provides={"representation:whole-sequence"},
        requires={"backbone:row-attention"} | _PATCHES,
        options={"reach": 1},
        source=LOCAL,
    ),
)

OUTPUTS = (
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
)


def _space(name: str, summary: str, data: tuple[str, ...]) -> Space:
    block = Block(
        data=data,
        transform=("no-op", "mask-patches", "noise-patches", "shift", "rotate"),
        representation=("bidirectional", "neighbourhood"),
        output=("end-task", "patch-denoise", "rotation", "contrastive"),
    )
    return Space(name=name, summary=summary, blocks=(block,))


SPACES = (
    _space("vision-td", "The task's own images", ("task",)),
    _space("vision-td+ed", "With further images without labels", ("task", "images")),
)
