"""A head that reads the mean of a row: the export is a plain model, and answers as the trained parts do."""

import json
from copy import deepcopy

import pytest
import torch
from _families import save_family
from _steps import make_step
from _tasks import examples, flags, write_task
from aang_cli.main import main
from aang_text.encoder.backbone import load
from aang_text.encoder.pooling import SCALE, MeanReading, layer_state
from click.testing import CliRunner

from aang_core.batch.packing import plain_batch
from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Hidden, Origin
from aang_core.data.task import Task
from aang_core.errors import ConfigError, ModelError
from aang_core.method.gradient.metagrad import disagreement, fused, looped

SETTINGS = BackboneSettings(device="cpu", pooling="mean")
TEXTS = (
    "Names",
    "The with statement wraps a block.",
    "a tuple of values is made, and the names are bound to it in order",
    "a list",
)
BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "deberta-v2")


def task_of(kind="class"):
    from datasets import Dataset

    rows = [{"text": text, "label": 0} for text in TEXTS]
    names = () if kind == "regression" else ("low", "high", "none")
    splits = {"train": Dataset.from_list(rows)}
    return Task(name="words", kind=kind, metric="f1", splits=splits, label_names=names)


def nudge(*modules):
    """Stands for training: every parameter moves."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def states_of(backbone):
    rows = backbone.rows([{"text": t} for t in TEXTS], [Origin("t", 0, i) for i in range(4)])
    with torch.no_grad():
        return backbone.encode(plain_batch(rows))


def trained_logits(backbone, head):
    backbone.body.eval()
    head.eval()
    with torch.no_grad():
        return head(states_of(backbone), torch.arange(4))


def transformers_alone(folder):
    """Logits, and the states before and behind the last layer with their mask, of all texts padded together."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    padded = AutoTokenizer.from_pretrained(folder)(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model(**padded, output_hidden_states=True)
    return out.logits, out.hidden_states[-2], out.hidden_states[-1], padded["attention_mask"]


def assert_exact(backbone, folder, kind="class", trained=True):
    """The export of a head that reads the mean answers as the head does; returns what transformers says."""
    task = task_of(kind)
    head = backbone.end_task_head(task)
    if trained:
        nudge(backbone.body, head)
    logits = trained_logits(backbone, head)
    backbone.export(folder, head, task)
    answer = transformers_alone(folder)
    torch.testing.assert_close(answer[0], logits, rtol=0, atol=1e-4)
    assert logits.std(0).max() > 1e-3
    assert "aang" not in (folder / "config.json").read_text("utf-8")
    return answer


def cosines(answer):
    """[B]: of the last layer's first position with the mean of the states before it."""
    _, before, behind, mask = answer
    mean = (before * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.cosine_similarity(behind[:, 0], mean, dim=-1)


@pytest.mark.parametrize("family", BERT_LIKE)
def test_transformers_alone_computes_what_was_trained(family, tmp_path):
    backbone = load(str(save_family(tmp_path / "base", family)), SETTINGS)
    assert_exact(backbone, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    assert config.get("num_hidden_layers", config.get("n_layers")) == 4


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_layers_answer_is_the_means_direction(family, tmp_path):
    backbone = load(str(save_family(tmp_path / "base", family)), SETTINGS)
    # before a nudge: the states' own norm has neither scale nor shift, as the layer's
    answer = assert_exact(backbone, tmp_path / "model", trained=False)
    assert cosines(answer).min() >= 0.999


@pytest.mark.slow
def test_the_bundled_encoder(tmp_path):
    answer = assert_exact(load("bundled:minilm", SETTINGS), tmp_path / "model", trained=False)
    assert cosines(answer).min() >= 0.999


def test_other_kinds_of_task(tmp_path):
    for kind in ("regression", "multilabel"):
        backbone = load("scratch:tiny", SETTINGS)
        assert_exact(backbone, tmp_path / kind, kind)


def test_modernbert_has_a_setting_of_its_own(tmp_path):
    folder = save_family(tmp_path / "base", "modernbert", classifier_pooling="cls")
    assert_exact(load(str(folder), SETTINGS), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    assert (config["classifier_pooling"], config["num_hidden_layers"]) == ("mean", 3)


def test_a_pooler_begins_as_the_identity_where_the_head_is_new(tmp_path):
    base = str(save_family(tmp_path / "base", "bert"))
    head = load(base, SETTINGS).end_task_head(task_of()).eval()
    pooler = head.shell.bert.pooler
    states = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(pooler(states), states[:, 0].tanh(), rtol=0, atol=1e-6)
    assert any("pooler" in name for name in head.pretrained_names)  # at the encoder's rate
    plain = load(base, BackboneSettings(device="cpu")).end_task_head(task_of())
    assert not plain.shell.bert.pooler.dense.weight.equal(pooler.dense.weight)
    # a whole head that comes with the checkpoint keeps its own
    nudge(head)
    load(base, SETTINGS).export(tmp_path / "model", head, task_of())
    again = load(str(tmp_path / "model"), SETTINGS).end_task_head(task_of())
    assert again.shell.bert.pooler.dense.weight.equal(pooler.dense.weight)


def test_adapters_and_frozen_layers_go_with_it(tmp_path):
    base = str(save_family(tmp_path / "base", "bert"))
    for name, settings in (("adapters", {"lora_rank": 2}), ("frozen", {"frozen_layers": 2})):
        backbone = load(base, BackboneSettings(device="cpu", pooling="mean", **settings))
        assert_exact(backbone, tmp_path / name)


def test_the_reading_is_what_its_formula_says():
    generator = torch.Generator().manual_seed(0)
    lengths, eps = (5, 1, 9), (1e-5, 1e-12)
    states = torch.randn(15, 8, generator=generator, dtype=torch.float64)
    hidden = Hidden(states, torch.tensor([0, 5, 6, 15]))
    found = MeanReading(eps)(hidden, torch.tensor([2, 0, 1]))
    for place, row in enumerate((2, 0, 1)):
        start = sum(lengths[:row])
        own = states[start : start + lengths[row]]
        wanted = SCALE * own.sum(0) / lengths[row] + own[0]
        for each in eps:
            spread = ((wanted - wanted.mean()) ** 2).mean()
            wanted = (wanted - wanted.mean()) / (spread + each).sqrt()
        torch.testing.assert_close(found[place], wanted, rtol=1e-12, atol=1e-12)


def test_a_row_gets_a_gradient_at_all_of_its_positions_and_no_other_does():
    head = load("scratch:tiny", SETTINGS).end_task_head(task_of()).eval()
    states = torch.randn(9, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    hidden = Hidden(states=states, offsets=torch.tensor([0, 4, 9]))
    (grad,) = torch.autograd.grad(head(hidden, torch.tensor([1]))[:, 0].sum(), states)
    assert grad.abs().sum(-1).nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_engines_agree(family, tmp_path):
    settings = BackboneSettings(device="cpu", dtype="float64", pooling="mean")
    step = make_step(backbone=load(str(save_family(tmp_path, family)), settings))
    slow = looped(step.model, step.batch, step.coefficients, step.dev_gradient)
    step.gradients()
    fast = fused(step.model, step.batch, step.coefficients, step.dev_gradient)
    assert disagreement(fast, slow) < 1e-8


@pytest.mark.parametrize(
    ("family", "name"),
    [("albert", "AlbertModel"), ("mpnet", "MPNetModel"), ("roberta-prelayernorm", "RobertaPre")],
)
def test_a_family_whose_layer_cannot_is_refused(family, name, tmp_path):
    backbone = load(str(save_family(tmp_path, family)), SETTINGS)
    with pytest.raises(ModelError, match=rf"{name}.*It can for BERT, RoBERTa.*'default'"):
        backbone.end_task_head(task_of())


def test_a_layer_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    """A family whose layer has the names of BERT's and computes something else."""
    from transformers.models.bert import modeling_bert

    backbone = load(str(save_family(tmp_path, "bert")), SETTINGS)
    own = modeling_bert.BertOutput.forward
    monkeypatch.setattr(modeling_bert.BertOutput, "forward", lambda *args: own(*args) + 0.1)
    with pytest.raises(ModelError, match=r"a layer made for it is 1\.0e-01 away"):
        backbone.end_task_head(task_of())


def test_a_task_with_an_answer_a_word_is_refused():
    with pytest.raises(ModelError, match=r"one answer a text; the task 'words'"):
        load("scratch:tiny", SETTINGS).end_task_head(task_of("token"))


def test_an_unknown_pooling_is_an_error():
    from aang_core.config.settings import RunConfig

    with pytest.raises(ConfigError, match=r"training\.pooling.*default"):
        RunConfig.from_mapping({"training": {"pooling": "median"}})


def test_a_layer_of_another_shape_has_no_state(tmp_path):
    body = deepcopy(load(str(save_family(tmp_path, "bert")), SETTINGS).body)
    layer = body.encoder.layer[-1]
    assert layer_state(layer) is not None
    layer.attention.self.value = torch.nn.Linear(32, 16)
    assert layer_state(layer) is None


def test_a_run_predicts_from_its_files_what_it_answered_itself(tmp_path):
    task, out, texts = write_task(tmp_path / "boxes"), tmp_path / "run", tmp_path / "texts.txt"

    def aang(*arguments):
        done = CliRunner().invoke(main, [str(each) for each in arguments])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    pooled = ("--set", "training.pooling=mean")
    aang("run", "--task", task, "--method", "finetune", "--out", out, *flags(max_steps=2), *pooled)
    own = (out / "predictions.jsonl").read_text("utf-8").splitlines()
    texts.write_text("".join(row["text"] + "\n" for row in examples(10, 34)), "utf-8")
    answers = json.loads(aang("predict", out, texts, "--json"))
    for answer, ours in zip(answers, map(json.loads, own), strict=True):
        assert answer["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-4)


SENTENCES = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("family", "kind", "settings", "expected"),
    [
        ("bert", "class", SENTENCES, True),
        ("bert", "class", {**SENTENCES, "pooling_mode_mean_tokens": False}, False),
        ("bert", "class", None, False),
        ("bert", "class", "no table", False),
        ("bert", "token", SENTENCES, False),
        ("albert", "class", SENTENCES, False),
    ],
)
def test_by_default_a_sentence_encoder_is_read_as_it_was_trained(
    family, kind, settings, expected, tmp_path
):
    folder = save_family(tmp_path / "base", family)
    if settings is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings), "utf-8")
    backbone = load(str(folder), BackboneSettings(device="cpu"))
    head = backbone.end_task_head(task_of(kind))
    assert (head.reading is not None) is expected
