"""The end-task head is the family's own, and an exported model answers as the trained parts do."""

from __future__ import annotations

import json
from copy import deepcopy

import attrs
import pytest
import torch
from _families import save_family
from _tasks import settings, write_task
from aang_text.encoder.backbone import load
from aang_text.encoder.exported import load_predictor, model_card
from aang_text.encoder.heads import ClassifierHead

import aang_core
from aang_core.batch.packing import plain_batch
from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Hidden, Origin, word_starts
from aang_core.data.task import Task
from aang_core.errors import ModelError
from aang_core.rundir.card import add_results

SETTINGS = BackboneSettings(device="cpu")
EXAMPLES = [
    {"text": "The with statement wraps a block.", "label": 0},
    {"text": "Names", "label": 1},
    {"text": "a tuple of values is made, and the names are bound to it in order", "label": 1},
]
ROWS = torch.arange(len(EXAMPLES))


def task_of(kind="class", examples=EXAMPLES, names=("low", "high", "none")):
    from datasets import Dataset

    return Task(
        name="words",
        kind=kind,
        metric="f1",
        splits={"train": Dataset.from_list(examples)},
        label_names=() if kind == "regression" else names,
    )


def encoded(backbone, examples=EXAMPLES):
    origins = [Origin("test", 0, i) for i in range(len(examples))]
    return backbone.encode(plain_batch(backbone.rows(examples, origins)))


def nudge(*modules):
    """Stands for training: every parameter moves."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(
    ("family", "first_only"),
    [
        ("bert", True),
        ("roberta", True),
        ("distilbert", True),
        ("electra", True),
        ("albert", True),
        ("modernbert", False),
        ("mpnet", True),
        ("deberta-v2", True),
    ],
)
def test_an_export_answers_as_the_trained_parts_do(tmp_path, family, first_only):
    backbone = load(str(save_family(tmp_path / "base", family)), SETTINGS)
    task = task_of()
    head = backbone.end_task_head(task)
    assert head.first_only == first_only
    nudge(backbone.body, head)
    backbone.body.eval()
    head.eval()
    with torch.no_grad():
        logits = head(encoded(backbone), ROWS)
    backbone.export(tmp_path / "model", head, task)
    found = backbone.exported_logits(tmp_path / "model", EXAMPLES)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5)
    assert logits.std() > 1e-3
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "low", "1": "high", "2": "none"}
    assert config["problem_type"] == "single_label_classification"
    assert "aang" not in json.dumps(config)
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "transformers"\n')


def test_a_pipeline_answers_with_label_names(tmp_path):
    from transformers import pipeline

    backbone = load("scratch:tiny", SETTINGS)
    task = task_of()
    backbone.export(tmp_path, backbone.end_task_head(task), task)
    answers = pipeline("text-classification", str(tmp_path), device="cpu")(["The names", "list"])
    assert {answer["label"] for answer in answers} <= {"low", "high", "none"}


@pytest.mark.parametrize(
    ("kind", "names", "problem", "width"),
    [
        ("regression", (), "regression", 1),
        ("multilabel", ("a", "b"), "multi_label_classification", 2),
    ],
)
def test_other_kinds_of_task(tmp_path, kind, names, problem, width):
    backbone = load("scratch:tiny", SETTINGS)
    task = task_of(kind, names=names)
    head = backbone.end_task_head(task).eval()
    backbone.body.eval()
    logits = head(encoded(backbone), ROWS)
    assert logits.shape == (3, width)
    backbone.export(tmp_path, head, task)
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == problem
    found = backbone.exported_logits(tmp_path, EXAMPLES)
    torch.testing.assert_close(found, logits.detach(), rtol=0, atol=1e-6)


def test_token_tasks_have_logits_for_every_position_asked_for(tmp_path):
    backbone = load("scratch:tiny", SETTINGS)
    examples = [{"text": ["a", "tuple"], "label": [0, 1]}, {"text": ["Names"], "label": [1]}]
    task = task_of("token", examples, ("o", "name"))
    head = backbone.end_task_head(task).eval()
    backbone.body.eval()
    hidden = encoded(backbone, examples)
    logits = head(hidden, torch.arange(len(hidden.states))).detach()
    assert torch.equal(head(hidden, torch.tensor([4, 1])), logits[[4, 1]])
    backbone.export(tmp_path, head, task)
    found = backbone.exported_logits(tmp_path, examples)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-6)
    words = load_predictor(tmp_path, SETTINGS).logits(examples)
    assert [len(each) for each in words] == [2, 1]
    rows = backbone.rows(examples, [Origin("test", 0, i) for i in (0, 1)])
    starts = torch.cat([word_starts(row.marks["word"]) for row in rows])
    torch.testing.assert_close(torch.cat(words), logits[starts], rtol=0, atol=1e-6)


def test_pairs_are_exported_with_their_token_types(tmp_path):
    backbone = load("scratch:tiny", BackboneSettings(device="cpu", max_length=12))
    nudge(backbone.body)
    backbone.body.eval()
    pairs = [{"text": "the names " * 8, "text_pair": "a list"}, {"text": "a", "text_pair": "b"}]
    pairs.append({"text": "without a second", "text_pair": None})
    task = task_of(examples=pairs)
    head = backbone.end_task_head(task).eval()
    logits = head(encoded(backbone, pairs), torch.arange(3)).detach()
    backbone.export(tmp_path, head, task)
    found = backbone.exported_logits(tmp_path, pairs)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-6)
    assert "text_pair" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("known_as", "base"),
    [
        ("roberta-base", "roberta-base"),
        ("owner/name-v1.5", "owner/name-v1.5"),
        ("scratch:tiny", None),
        ("/some/folder", None),
    ],
)
def test_the_card_is_what_the_hub_reads(tmp_path, known_as, base):
    """Base models that are no hub ids are left out; awkward names break nothing; scores are a model-index."""
    from types import SimpleNamespace

    from huggingface_hub import ModelCard

    task = attrs.evolve(task_of("regression"), name='a "b": c', metric="pearson")
    card = tmp_path / "README.md"
    card.write_text(model_card(task, SimpleNamespace(known_as=known_as)), encoding="utf-8")
    scores = {"dev": {"pearson": 0.5, "mse": 0.25}, "test": {"pearson": 0.75, "mse": 0.125}}
    add_results(card, task.name, scores)
    data = ModelCard(card.read_text("utf-8"), ignore_metadata_errors=False).data
    assert (data.base_model, data.library_name) == (base, "transformers")
    assert (data.pipeline_tag, data.license) == ("text-classification", "unknown")
    assert data.metrics == ["pearsonr"]
    assert "aang" in data.tags
    found = {(r.dataset_split, r.metric_type): r.metric_value for r in data.eval_results}
    assert found == {
        ("dev", "pearsonr"): 0.5,
        ("dev", "mse"): 0.25,
        ("test", "pearsonr"): 0.75,
        ("test", "mse"): 0.125,
    }
    assert {r.dataset_name for r in data.eval_results} == {task.name}


def test_a_run_leaves_a_card_with_its_scores(tmp_path):
    from huggingface_hub import ModelCard

    report = aang_core.run(
        task=write_task(tmp_path / "boxes"), out=tmp_path / "run", method="finetune", **settings()
    )
    text = (tmp_path / "run" / "model" / "README.md").read_text("utf-8")
    found = ModelCard(text, ignore_metadata_errors=False).data.eval_results
    test = {r.metric_name: r.metric_value for r in found if r.dataset_split == "test"}
    assert test == pytest.approx(report.seeds[0].test, abs=1e-6)


def test_every_head_begins_in_the_same_state_and_is_small():
    backbone = load("scratch:tiny", SETTINGS)
    primary, dev = backbone.end_task_head(task_of()), backbone.end_task_head(task_of())
    for one, other in zip(primary.parameters(), dev.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()
    assert sum(p.numel() for p in primary.parameters()) == 32 * 32 + 32 + 32 * 3 + 3
    body = {id(p) for p in backbone.body.parameters()}
    assert not body & {id(p) for p in primary.parameters()}


def test_a_head_that_reads_the_first_position_gets_no_gradient_elsewhere():
    backbone = load("scratch:tiny", SETTINGS)
    head = backbone.end_task_head(task_of()).eval()
    states = torch.randn(9, 32, requires_grad=True)
    hidden = Hidden(states=states, offsets=torch.tensor([0, 4, 9]))
    (grad,) = torch.autograd.grad(head(hidden, torch.tensor([1])).sum(), states)
    assert grad.abs().sum(-1).nonzero()[:, 0].tolist() == [4]


def test_a_strangers_head_is_not_exported(tmp_path):
    backbone = load("scratch:tiny", SETTINGS)
    with pytest.raises(ModelError, match="end_task_head"):
        backbone.export(tmp_path, torch.nn.Linear(2, 2), task_of())


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "electra", "modernbert", "albert"]
)
def test_the_vocabulary_head_is_the_checkpoints_own(tmp_path, family):
    from transformers import AutoModelForMaskedLM

    folder = str(save_family(tmp_path, family, "AutoModelForMaskedLM"))
    backbone = load(folder, SETTINGS)
    whole = AutoModelForMaskedLM.from_pretrained(folder).eval()
    rows = backbone.rows(EXAMPLES[:1], [Origin("test", 0, 0)])
    with torch.no_grad():
        states = backbone.encode(plain_batch(rows)).states
        wanted = whole(input_ids=rows[0].inputs["input_ids"][None]).logits[0]
        for tied in (True, False):
            head = backbone.vocabulary_head(tied).eval()
            torch.testing.assert_close(head(states), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "electra", "deberta-v2"])
def test_a_checkpoint_without_one_gets_a_fresh_vocabulary_head(tmp_path, family):
    backbone = load(str(save_family(tmp_path, family)), SETTINGS)
    head, same = backbone.vocabulary_head(True), backbone.vocabulary_head(True)
    states = torch.randn(5, 32)
    assert head(states).shape == (5, backbone.vocab_size)
    assert head.project(states).shape == (5, backbone.embedding_size)
    assert torch.equal(head(states), same(states))


def test_a_tied_decoder_is_the_embedding_itself_and_counted_once():
    backbone = load("scratch:tiny", SETTINGS)
    weight = backbone.body.get_input_embeddings().weight
    tied, untied = backbone.vocabulary_head(True), backbone.vocabulary_head(False)
    assert deepcopy(tied).decoder_weight is weight
    assert all(p is not weight for p in tied.parameters())
    assert "untied_weight" not in tied.state_dict()
    tied(torch.randn(3, 32)).sum().backward()
    assert weight.grad is not None
    assert torch.equal(untied.decoder_weight, weight)
    assert untied.decoder_weight is not weight


def test_a_head_is_of_its_family():
    backbone = load("scratch:tiny", SETTINGS)
    head = backbone.end_task_head(task_of())
    assert isinstance(head, ClassifierHead)
    assert type(head.shell).__name__ == "BertForSequenceClassification"


@pytest.mark.slow
def test_the_bundled_encoder_makes_the_round_trip(tmp_path):
    backbone = load("bundled:minilm", SETTINGS)
    assert backbone.packed
    task = task_of()
    head = backbone.end_task_head(task).eval()
    logits = head(encoded(backbone), ROWS).detach()
    backbone.export(tmp_path, head, task)
    found = backbone.exported_logits(tmp_path, EXAMPLES)
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5)


def test_a_weight_that_does_not_come_back_is_an_error(tmp_path, monkeypatch):
    """A row of the embeddings that no compared text reads shows in the weights, not in any logit."""
    from transformers import BertForSequenceClassification as Whole

    backbone = load("scratch:tiny", SETTINGS)
    task, saved = task_of(), Whole.save_pretrained

    def spoilt(self, *arguments, **keywords):
        other = deepcopy(self)
        with torch.no_grad():
            other.get_input_embeddings().weight[7, 3] += 1.0
        saved(other, *arguments, **keywords)

    monkeypatch.setattr(Whole, "save_pretrained", spoilt)
    with pytest.raises(ModelError, match=r"word_embeddings\.weight is not there again"):
        backbone.export(tmp_path, backbone.end_task_head(task), task)
