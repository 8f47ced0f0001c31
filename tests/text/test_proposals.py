"""Texts from language models: proposals of a masked one, whole texts of a causal one; made once, and kept."""

import attrs
import pytest
import torch
from _causal import save_causal
from _families import save_family
from aang_text.data.generated import Generated
from aang_text.data.sources import TaskTexts
from aang_text.data.stored import place_of, read, tokenizer_digest, write
from aang_text.encoder.backbone import load
from aang_text.proposals import PASSES, NeuralLm, fitted_head, has_own_head
from aang_text.transforms import Replace
from datasets import Dataset

from aang_core.batch.packing import fuse, pack, plain_batch, prepare
from aang_core.batch.protocols import BackboneSettings, Binding
from aang_core.batch.rows import SINGLE
from aang_core.errors import AangError, ConfigError, ModelError, RunError, TaskError
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

OPTIONS = dict(load_registry().primitive("neural-lm").options)
CAUSAL = dict(load_registry().primitive("generated").options)
SETTINGS = BackboneSettings(device="cpu", max_length=32)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def bound(tmp_path, backbone=None, task=None, **options):
    return Binding(
        task=task or tiny_task(rows=8),
        backbone=backbone or tiny_backbone(),
        options={**OPTIONS, "fit_steps": 3, **options},
        cache=tmp_path,
    )


def english():
    texts = [
        "a list of names",
        "the value of a file",
        "every class has a type",
        "strings and lists",
    ]
    train = Dataset.from_dict({"text": texts, "label": [0, 1, 0, 1]})
    return attrs.evolve(tiny_task(), splits={"train": train}, unlabelled=None)


def test_every_ordinary_position_has_a_proposal_that_is_no_special_token(tmp_path):
    backbone = tiny_backbone()
    rows = list(NeuralLm(bound(tmp_path, backbone)).rows())
    assert len(rows) == 16
    for row in rows:
        assert (row.proposals[row.special] == -1).all()
        assert torch.isin(row.proposals[~row.special], backbone.replaceable).all()
        assert row.label is None


def test_replace_shows_the_proposals_where_it_selects(tmp_path):
    source = NeuralLm(bound(tmp_path))
    packed = pack(source.draw(SINGLE, 6, gen()))
    replaced = Replace(bound(tmp_path)).apply(packed, gen())
    chosen = replaced.selected
    assert chosen.any()
    assert torch.equal(replaced.inputs["input_ids"][chosen], packed.proposals[chosen])
    assert torch.equal(replaced.inputs["input_ids"][~chosen], packed.inputs["input_ids"][~chosen])


def test_proposals_are_made_once_and_read_again(tmp_path):
    told = []
    binding = bound(tmp_path)
    binding = attrs.evolve(binding, progress=lambda *each: told.append(each))
    first = [row.proposals for row in NeuralLm(binding).rows()]
    assert ("neural-lm: fitting a denoise head", 3, 3) in told
    assert told[-1][1] == told[-1][2]
    told.clear()
    again = [row.proposals for row in NeuralLm(binding).rows()]
    assert told == []
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = [row.proposals for row in NeuralLm(bound(tmp_path, seed=1)).rows()]
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert len(list((tmp_path / "proposals").iterdir())) == 2


def test_the_number_of_texts_can_be_bounded(tmp_path):
    source = NeuralLm(bound(tmp_path, texts=5))
    assert len(source) == len(list(source.rows())) == 5
    assert len(source.draw(SINGLE, 12, gen())) == 12


def test_passes_mask_at_most_their_share_of_a_text():
    from aang_text.proposals import _groups

    for length in (1, 6, 7, 20, 63):
        special = torch.tensor([True, *[False] * length, True])
        group = _groups(special, gen())
        assert group[special].tolist() == [-1, -1]
        counts = torch.bincount(group[~special], minlength=PASSES)
        assert counts.max() - counts.min() <= 1


def test_a_head_of_its_own_proposes_what_fits(tmp_path):
    """A model that is sure of its answers proposes them: its bias alone decides here."""
    folder = save_family(tmp_path / "mlm", "bert", "AutoModelForMaskedLM")
    backbone = load(str(folder), SETTINGS)
    assert has_own_head(backbone)
    head = backbone.vocabulary_head(tied=True)
    sure = int(backbone.replaceable[40])
    with torch.no_grad():
        head.bias[sure] += 100.0
    backbone._vocabulary = (head.projection, head.bias.detach())
    rows = list(NeuralLm(bound(tmp_path, backbone, english())).rows())
    assert {int(p) for row in rows for p in row.proposals[~row.special]} == {sure}


def test_an_encoder_without_a_head_has_one_fitted_and_stays_as_it_was(tmp_path):
    backbone = tiny_backbone(dropout=0.1)
    assert not has_own_head(backbone)
    before = {name: p.clone() for name, p in backbone.body.state_dict().items()}
    binding = attrs.evolve(bound(tmp_path, backbone), source=TaskTexts(bound(tmp_path, backbone)))
    losses = [masked_loss(binding, steps) for steps in (0, 60)]
    assert losses[1] < losses[0] - 0.1
    assert all(torch.equal(before[name], p) for name, p in backbone.body.state_dict().items())
    assert all(p.grad is None for p in backbone.body.parameters())


def masked_loss(binding, steps):
    from aang_text.outputs.vocabulary import Denoise
    from aang_text.representations import bidirectional
    from aang_text.transforms import Mask

    from aang_core.batch.packing import BoundObjective

    head, output = fitted_head(binding, steps, gen()), Denoise(binding)
    whole = BoundObjective("x", binding.source, Mask(binding), bidirectional(binding), output)
    piece = prepare(whole, 64, gen(9))
    binding.backbone.body.eval()
    with torch.no_grad():
        hidden = binding.backbone.encode(fuse([(0, piece)]))
        return float(output.losses(head, hidden, piece.targets).mean())


def test_a_model_with_another_tokenizer_is_refused_before_training(tmp_path):
    from transformers import AutoTokenizer

    folder = save_family(tmp_path / "other", "bert", "AutoModelForMaskedLM")
    own = load("scratch:tiny", SETTINGS)
    assert len(NeuralLm(bound(tmp_path, own, english(), model=str(folder))).draw(SINGLE, 2, gen()))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="made with another tokenizer"):
        NeuralLm(bound(tmp_path, own, english(), model=str(folder)))


def test_a_tokenizers_digest_does_not_change_with_use():
    tokenizer = load("scratch:tiny", SETTINGS).tokenizer
    before = tokenizer_digest(tokenizer)
    tokenizer(["a text"], truncation=True, max_length=4, padding="max_length")
    assert tokenizer_digest(tokenizer) == before


def test_an_unknown_corpus_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(ConfigError, match="expected one of task, in-domain, out-of-domain"):
        NeuralLm(bound(tmp_path, corpus="web"))
    with pytest.raises(TaskError, match="--external in-domain=FILE"):
        NeuralLm(bound(tmp_path, corpus="in-domain"))


def test_an_encoder_without_a_vocabulary_leaves_the_source_out(tmp_path):
    backbone = tiny_backbone()
    backbone.capabilities = frozenset()
    with pytest.raises(TaskError, match="neural-lm needs backbone:vocabulary; the encoder 'tiny'"):
        NeuralLm(bound(tmp_path, backbone))


def test_what_the_source_provides_needs_no_encoder(tmp_path):
    binding = attrs.evolve(bound(tmp_path), backbone=None)
    assert (len(NeuralLm(binding)), NeuralLm(binding).provides) == (16, frozenset())


def test_stored_files_know_what_they_were_made_with(tmp_path):
    settings = {"model": "a", "tokenizer": "one"}
    place = place_of(tmp_path, "proposals", settings)
    write(place, settings, {"x": torch.arange(3)})
    assert read(place, settings)["x"].tolist() == [0, 1, 2]
    with pytest.raises(AangError, match="tokenizer: expected 'two', found 'one'"):
        read(place, {**settings, "tokenizer": "two"})
    place.write_bytes(b"half")
    with pytest.raises(RunError, match="is damaged"):
        read(place, settings)


def test_texts_are_sampled_once_from_the_model_that_is_named(tmp_path):
    model = str(save_causal(tmp_path / "causal"))
    options = {**CAUSAL, "model": model, "texts": 10, "length": 5}
    told = []
    binding = attrs.evolve(bound(tmp_path), options=options, progress=lambda *a: told.append(a))
    state = torch.random.get_rng_state()
    source = Generated(binding)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert told[-1] == ("generated: sampling texts", 10, 10)
    assert len(source) == len(source.texts) == 10
    assert all(1 <= len(text.split()) <= 5 for text in source.texts)
    assert len(set(source.texts)) > 5
    told.clear()
    assert Generated(binding).texts == source.texts
    assert told == []
    other = Generated(attrs.evolve(binding, options={**options, "seed": 1}))
    assert other.texts != source.texts
    backbone = binding.backbone
    assert backbone.encode(plain_batch(source.draw(SINGLE, 4, gen()))).states.isfinite().all()


def test_generated_needs_a_model_and_says_so(tmp_path):
    with pytest.raises(TaskError, match="expected a causal language model, found none; name one"):
        Generated(attrs.evolve(bound(tmp_path), options=CAUSAL))
    missing = {**CAUSAL, "model": str(tmp_path / "gone")}
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        Generated(attrs.evolve(bound(tmp_path), options=missing))
