"""The encoder of images, its exports, its files, and what is refused."""

import attrs
import numpy as np
import pytest
import torch
from _digits import backbone, binding, rows_of, small_task
from aang_vision.backbone import SHAPES, load
from aang_vision.exported import ExportedImages
from aang_vision.representations import neighbourhood
from aang_vision.sources import read_array, read_images
from aang_vision.transforms import MaskPatches, NoisePatches, Shift

from aang_core.batch.packing import plain_batch
from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Origin
from aang_core.batch.stream import FULL, FusedBatch, RowRule
from aang_core.errors import ConfigError, ModelError, TaskError
from aang_core.method.end_task import EndTask


def test_rows_do_not_see_each_other_and_short_rows_change_nothing():
    encoder, task = backbone(), small_task()
    rows = rows_of(encoder, task)[:3]
    cut = attrs.evolve(
        rows[1], inputs={"patches": rows[1].inputs["patches"][:5]}, special=rows[1].special[:5]
    )
    alone = [encoder.encode(plain_batch([row])).states for row in (rows[0], cut, rows[2])]
    together = encoder.encode(plain_batch([rows[0], cut, rows[2]])).states
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tag", ["causal", "matrix"])
def test_the_encoder_keeps_to_attention_rules(tag):
    encoder, task = backbone(), small_task()
    batch = plain_batch(rows_of(encoder, task)[:2])
    matrix = neighbourhood(17, 0)
    rules = (RowRule(tag, matrix if tag == "matrix" else None), FULL)
    batch = FusedBatch(inputs=batch.inputs, offsets=batch.offsets, rules=rules)
    before = encoder.encode(batch).states
    step = rules[0].matrix(17).double()
    reach = torch.linalg.matrix_power(step, SHAPES["patches:tiny"].layers) > 0
    for place in (0, 4, 16):
        patches = batch.inputs["patches"].clone()
        patches[place] = 0.3
        changed = FusedBatch(inputs={"patches": patches}, offsets=batch.offsets, rules=rules)
        moved = (encoder.encode(changed).states != before).any(1)
        assert moved[:17].equal(reach[:, place])
        assert not moved[17:].any()


def test_weights_depend_on_the_seed_alone():
    one, again, other = (backbone(seed=seed).body.state_dict() for seed in (1, 1, 2))
    assert all(one[name].equal(again[name]) for name in one)
    assert not one["pixels.weight"].equal(other["pixels.weight"])


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("patches:tny", {}, "did you mean 'patches:tiny'"),
        ("patches:tiny", {"lora_rank": 4, "frozen_layers": 1}, "frozen_layers, lora_rank"),
        ("patches:tiny", {"max_length": 8}, "needs 17 positions"),
        ("patches:tiny", {"dtype": "int8"}, "no floating-point type"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_refused(model, settings, message):
    with pytest.raises(ModelError, match=message):
        load(model, BackboneSettings(**settings))


@pytest.mark.parametrize(
    ("primitive", "options", "message"),
    [
        (MaskPatches, {"rate": 0}, "rate"),
        (NoisePatches, {"rate": 0.5, "std": -1}, "std"),
        (Shift, {"pixels": 8}, "fewer than the image's 8"),
    ],
)
def test_options_out_of_range_are_refused(primitive, options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        primitive(binding(None, tmp_path, **options))


def test_an_answer_a_position_is_refused():
    task = attrs.evolve(small_task(), kind="token")
    with pytest.raises(ModelError, match="one answer an image"):
        backbone().end_task_head(task)


def test_files_of_images_are_read_alike(tmp_path):
    images = [[0] * 60 + [1, 2, 3, 16], [16] * 64]
    np.save(tmp_path / "a.npy", np.array(images, dtype=np.uint8).reshape(2, 8, 8))
    lines = [" ".join(map(str, image)) for image in images]
    (tmp_path / "b.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (tmp_path / "c.csv").write_text("image\n" + "\n".join(lines) + "\n", "utf-8")
    (tmp_path / "d.jsonl").write_text("".join(f'{{"image": {i}}}\n' for i in images), "utf-8")
    encoder = backbone()
    for path in sorted(tmp_path.iterdir()):
        rows = encoder.rows(read_images(path), [Origin("x", 0, 0)] * 2)
        expected = torch.tensor(images[0][-2:]) / 16
        assert rows[0].inputs["patches"][16, 2:].equal(expected), path


def test_an_array_that_would_run_code_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TaskError, match="as an array of numbers"):
        read_array(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(TaskError, match="first dimension the images"):
        read_array(tmp_path / "b.npy")


def test_a_damaged_export_is_an_error_that_names_it(tmp_path):
    encoder, task = backbone(), small_task()
    encoder.export(tmp_path, encoder.end_task_head(task), task)
    config = (tmp_path / "config.json").read_text("utf-8")
    (tmp_path / "config.json").write_text(config.replace('"layers": 2', '"layers": 3'), "utf-8")
    with pytest.raises(ModelError, match="no model that can be loaded"):
        ExportedImages(tmp_path, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["class", "regression", "multilabel"])
def test_every_kind_of_answer_an_image_exports_exactly(kind, tmp_path):
    encoder, task = backbone("float32"), attrs.evolve(small_task(), kind=kind)
    if kind == "regression":
        task = attrs.evolve(task, label_names=(), metric="pearson")
    head = encoder.end_task_head(task).eval()
    encoder.export(tmp_path, head, task)
    examples = list(task.splits["dev"])
    hidden = encoder.encode(plain_batch(rows_of(encoder, task, "dev")))
    with torch.no_grad():
        ours = head(hidden, torch.arange(len(examples)))
    assert ours.shape == (12, task.num_outputs)
    torch.testing.assert_close(encoder.exported_logits(tmp_path, examples), ours)
    assert EndTask(binding(None, tmp_path)).names == tuple("0123456789")
