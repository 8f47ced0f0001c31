"""Images as patches: rows, primitives against slow readings, the encoder, and what is refused."""

import math

import attrs
import numpy as np
import pytest
import torch
from _digits import backbone, binding, packed_images
from aang_vision.images import MASKED, WHOLE, Format, image_rows
from aang_vision.outputs import PatchDenoise, Rotation
from aang_vision.representations import neighbourhood
from aang_vision.sources import digits
from aang_vision.transforms import MaskPatches, NoisePatches, Rotate, Shift

from aang_core.batch.rows import Hidden, Origin
from aang_core.check.sanity import copied_positions
from aang_core.errors import TaskError
from aang_core.registry.legality import Legal, enumerate_objectives
from aang_core.registry.registry import load_registry
from aang_core.registry.spaces import resolve_space
from aang_core.testing import check_primitive

REGISTRY = load_registry()
OWN = [e.record for e in REGISTRY.primitives.values() if e.distribution == "aang-vision"]
BORROWED = ("task", "no-op", "bidirectional", "end-task", "contrastive")
PRIMITIVES = [*OWN, *(REGISTRY.primitive(name) for name in BORROWED)]


@pytest.mark.parametrize("record", PRIMITIVES, ids=lambda record: record.name)
def test_primitive_keeps_its_contract_on_images(record, tmp_path):
    check_primitive(record, binding(record, tmp_path))


def test_the_plugin_brings_what_its_space_needs():
    assert {record.name for record in OWN} == {
        *("images", "mask-patches", "noise-patches", "shift", "rotate"),
        *("neighbourhood", "patch-denoise", "rotation"),
    }
    space = resolve_space("vision-td", REGISTRY)
    verdicts = enumerate_objectives(
        space, REGISTRY, backbone_capabilities=backbone().capabilities, provided={"task": ()}
    )
    legal = [v.objective.output for v in verdicts if isinstance(v, Legal)]
    counts = {name: legal.count(name) for name in set(legal)}
    # transforms times representations: all; those that keep a selection; rotate alone; all
    assert counts == {
        "end-task": 5 * 2,
        "patch-denoise": 3 * 2,
        "rotation": 1 * 2,
        "contrastive": 5 * 2,
    }


def test_no_primitive_of_texts_meets_images_by_mistake():
    space = resolve_space("vision-td", REGISTRY, ("mask", "denoise"))
    verdicts = enumerate_objectives(
        space, REGISTRY, backbone_capabilities=backbone().capabilities, provided={"task": ()}
    )
    legal = {v.objective for v in verdicts if isinstance(v, Legal)}
    assert not [o for o in legal if o.transform == "mask" or o.output == "denoise"]
    texts = enumerate_objectives(
        space, REGISTRY, backbone_capabilities=frozenset({"backbone:vocabulary"})
    )
    assert {v.objective.output for v in texts if isinstance(v, Legal)} == {"end-task", "denoise"}


def test_the_task_is_all_of_the_digits_each_once():
    task = digits()
    sizes = {name: len(split) for name, split in task.splits.items()}
    assert sizes == {"train": 1000, "dev": 200, "test": 597}
    images = [tuple(image) for split in task.splits.values() for image in split["image"]]
    assert len(set(images)) == 1797
    for split in task.splits.values():
        counts = np.bincount(split["label"], minlength=10)
        assert counts.max() - counts.min() <= 0.12 * len(split)


def test_patches_are_read_from_left_to_right_and_downwards():
    image = torch.arange(64.0).view(8, 8)
    (row,) = image_rows(
        Format(white=63.0), [{"image": image.int().flatten().tolist()}], [Origin("x", 0, 0)]
    )
    patches = row.inputs["patches"]
    assert patches.shape == (17, 4)
    assert (patches[0] == WHOLE).all()
    for line in range(4):
        for column in range(4):
            cut = image[2 * line : 2 * line + 2, 2 * column : 2 * column + 2].flatten() / 63
            assert patches[1 + 4 * line + column].equal(cut)
    assert Format().images_of(patches[1:][None])[0].equal(image / 63)


@pytest.mark.parametrize(
    "value",
    [
        "0 " * 63 + "16",
        ",".join(["0"] * 63 + ["16"]),
        [0] * 63 + [16],
        [[0] * 8] * 7 + [[0] * 7 + [16]],
    ],
    ids=["blanks", "commas", "list", "lines"],
)
def test_an_image_may_be_written_in_several_ways(value):
    (row,) = image_rows(Format(), [{"image": value}], [Origin("x", 0, 0)])
    assert row.inputs["patches"][16].tolist() == [0, 0, 0, 1]
    assert row.inputs["patches"][1:16].abs().sum() == 0


def test_images_of_another_format_are_all_named():
    values = ["1 2 3", [0] * 64, [17] + [0] * 63, "a b", [math.nan] * 64]
    with pytest.raises(TaskError) as caught:
        image_rows(Format(), [{"image": v} for v in values], [Origin("x", 0, 0)] * 5)
    text = str(caught.value)
    assert "image 1 has 3 numbers" in text
    assert "image 3 has numbers from 0 to 17" in text
    assert "image 4 holds 'a b'" in text
    assert "image 5" in text
    assert "image 2" not in text
    assert "8×8 = 64 numbers" in text


def test_masked_patches_are_hidden_and_counted(tmp_path):
    packed, _ = packed_images()
    after = MaskPatches(binding(None, tmp_path, rate=0.25)).apply(
        packed, torch.Generator().manual_seed(0)
    )
    hidden = (after.inputs["patches"] == MASKED).all(1)
    assert hidden.equal(after.selected)
    assert [int(row.sum()) for row in hidden.split(17)] == [4] * 6
    assert after.inputs["patches"][~hidden].equal(packed.inputs["patches"][~hidden])


def test_noise_has_the_spread_that_is_asked_for_and_stays_within_the_pixels(tmp_path):
    packed, _ = packed_images(30)
    grey = {"patches": packed.inputs["patches"].clamp(0.5, 0.5)}
    packed = attrs.evolve(packed, inputs=grey, original=grey)
    apply = NoisePatches(binding(None, tmp_path, rate=1.0, std=0.05)).apply
    shown = apply(packed, torch.Generator().manual_seed(0)).inputs["patches"]
    free = ~packed.special
    assert abs(float(shown[free].std()) - 0.05) < 0.005  # 1,920 draws: a standard error of 0.0008
    wild = NoisePatches(binding(None, tmp_path, rate=1.0, std=9.0)).apply
    shown = wild(packed, torch.Generator().manual_seed(0)).inputs["patches"][free]
    assert (shown.min(), shown.max()) == (0.0, 1.0)


def test_a_turned_image_is_the_image_turned(tmp_path):
    packed, images = packed_images(8)
    after = Rotate(binding(None, tmp_path)).apply(packed, torch.Generator().manual_seed(1))
    assert len(set(after.structure.tolist())) > 1
    for row, turns in enumerate(after.structure.tolist()):
        patches = after.inputs["patches"][17 * row + 1 : 17 * (row + 1)]
        expected = np.rot90(images[row].numpy(), turns)
        np.testing.assert_allclose(Format().images_of(patches[None])[0], expected, atol=1e-7)
        # each position has the original patch that moved there
        original = after.original["patches"][17 * row + 1 : 17 * (row + 1)]
        assert original.sum(1).allclose(patches.sum(1))


def test_a_shifted_image_keeps_what_does_not_leave_it(tmp_path):
    packed, images = packed_images(30)
    after = Shift(binding(None, tmp_path, pixels=1)).apply(packed, torch.Generator().manual_seed(0))
    seen = set()
    for row, image in enumerate(images.numpy()):
        patches = after.inputs["patches"][17 * row + 1 : 17 * (row + 1)]
        shown = Format().images_of(patches[None])[0].numpy()
        wide = np.pad(image, 1)
        ways = [
            (down, right)
            for down in range(3)
            for right in range(3)
            if np.allclose(shown, wide[down : down + 8, right : right + 8], atol=1e-7)
        ]
        assert len(ways) == 1
        seen.update(ways)
    assert len(seen) > 5


def test_a_neighbourhood_is_a_square_around_the_patch():
    allowed = neighbourhood(17, 1)
    for one in range(16):
        for other in range(16):
            near = abs(one // 4 - other // 4) <= 1 and abs(one % 4 - other % 4) <= 1
            assert bool(allowed[1 + one, 1 + other]) == near
    assert allowed[0].all()
    assert allowed[:, 0].all()


def test_patch_denoise_is_the_mean_squared_error_at_the_selected_patches(tmp_path):
    packed, _ = packed_images()
    bound = binding(None, tmp_path, rate=0.5)
    packed = MaskPatches(bound).apply(packed, torch.Generator().manual_seed(0))
    output = PatchDenoise(bound)
    targets, head = output.targets(packed), output.head()
    states = torch.randn(len(packed.special), 32, dtype=torch.float64)
    losses = output.losses(head, Hidden(states, packed.offsets), targets)
    places = packed.selected.nonzero().flatten().tolist()
    assert targets.index.tolist() == places
    for loss, place in zip(losses.tolist(), places, strict=True):
        gap = head(states[place]).detach() - packed.original["patches"][place].double()
        assert loss == pytest.approx(float((gap**2).sum()) / 4, rel=1e-12)


def test_the_copied_patch_is_found(tmp_path):
    """What a target repeats is found for inputs that are vectors, as for inputs that are numbers."""
    packed, _ = packed_images()
    bound = binding(None, tmp_path, rate=0.5)
    packed = MaskPatches(bound).apply(packed, torch.Generator().manual_seed(0))
    found = copied_positions(PatchDenoise(bound), packed)
    assert found.tolist() == packed.selected.nonzero().flatten().tolist()
    assert (copied_positions(Rotation(bound), packed) == -1).all()


def test_rotation_asks_how_far_each_image_was_turned(tmp_path):
    packed, _ = packed_images()
    bound = binding(None, tmp_path)
    output = Rotation(bound)
    assert output.targets(packed).value.tolist() == [0] * 6
    turned = Rotate(bound).apply(packed, torch.Generator().manual_seed(0))
    assert output.targets(turned).value.equal(turned.structure)
