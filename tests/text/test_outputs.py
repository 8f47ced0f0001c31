"""Outputs: targets on hand-made rows, losses against slow readings, and what is refused."""

import math

import attrs
import pytest
import torch
from aang_text.outputs.tokens import (
    Capitalization,
    RealSynthetic,
    TermFrequency,
    TfIdf,
    TokenLabels,
)
from aang_text.outputs.vocabulary import Denoise, NextToken, SpanBoundary
from torch.nn import functional as F

from aang_core.batch.packing import pack
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Hidden, Origin, Row
from aang_core.errors import ConfigError, ModelError, PluginError, TaskError
from aang_core.testing import tiny_backbone, tiny_source, tiny_task

BACKBONE = tiny_backbone(torch.float64)
TASK = tiny_task()
SOURCE = tiny_source(TASK, BACKBONE)


def binding(source=SOURCE, **options):
    return Binding(task=TASK, backbone=BACKBONE, options=options, source=source)


def rows_of(*texts, documents=None):
    """[CLS] ids [SEP] each; the first id of an even row is written with a capital."""
    rows = []
    for i, ids in enumerate(texts):
        special = torch.tensor([True, *[False] * len(ids), True])
        cased = torch.tensor([-1, *[j % 3 for j in range(len(ids))], -1])
        document = i if documents is None else documents[i]
        inputs = {"input_ids": torch.tensor([1, *ids, 2])}
        rows.append(Row(inputs, special, Origin("made", document, i), {"cased": cased}))
    return rows


class Given:
    """A data source of given rows."""

    provides = frozenset()

    def __init__(self, rows):
        self.made = rows

    def __len__(self):
        return len(self.made)

    def rows(self):
        yield from self.made

    def draw(self, layout, count, generator):
        numbers = torch.randint(len(self), (count,), generator=generator).tolist()
        return [self.made[n] for n in numbers]


def changed(packed, places, to=3):
    """The packed rows with the ids at some places selected and replaced."""
    chosen = torch.zeros_like(packed.special)
    chosen[places] = True
    ids = torch.where(chosen, to, packed.inputs["input_ids"])
    return attrs.evolve(packed, selected=chosen, inputs={"input_ids": ids})


def states_for(packed, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(len(packed.special), 32, generator=generator, dtype=torch.float64)
    return Hidden(states, packed.offsets)


def pairs(targets):
    return list(zip(targets.index.tolist(), targets.value.tolist(), strict=True))


def test_denoise_asks_for_the_originals_of_the_selection():
    packed = changed(pack(rows_of([10, 11, 12], [20, 21])), [2, 6])
    output = Denoise(binding())
    targets = output.targets(packed)
    assert pairs(targets) == [(2, 11), (6, 20)]
    head, hidden = output.head(), states_for(packed)
    logits = head(hidden.states[targets.index])
    slow = [-math.log(logits[i].detach().softmax(-1)[v]) for i, v in enumerate(targets.value)]
    assert torch.allclose(output.losses(head, hidden, targets), torch.tensor(slow).double())


def test_a_tied_decoder_is_the_embedding_matrix_and_an_untied_one_a_copy():
    words = BACKBONE.body.words.weight
    tied, untied = Denoise(binding()).head(), Denoise(binding(decoder="untied")).head()
    assert tied.decoder_weight is words
    assert untied.decoder_weight is not words
    assert torch.equal(untied.decoder_weight, words)
    assert not any(parameter is words for parameter in tied.parameters())


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("causal", [(0, 10), (1, 11), (2, 12), (5, 20)]),
        ("anticausal", [(2, 10), (3, 11), (4, 12), (7, 20)]),
    ],
)
def test_next_token_shifts_by_one_in_its_direction(tag, expected):
    packed = attrs.evolve(pack(rows_of([10, 11, 12], [20])), tag=tag)
    assert sorted(pairs(NextToken(binding()).targets(packed))) == expected


def test_next_token_follows_a_permuted_order():
    # positions of the row:        [CLS] 10 11 12 [SEP]
    order = torch.tensor([3, 0, 4, 1, 2])
    packed = attrs.evolve(pack(rows_of([10, 11, 12])), tag="order", order=order)
    targets = NextToken(binding()).targets(packed)
    # the order visits 10, 12, [SEP], [CLS], 11; special positions are read and not predicted
    assert pairs(targets) == [(1, 12), (0, 11)]
    assert targets.extra["offset"].tolist() == [2, 2]


def test_next_token_asks_for_originals_where_the_transform_hides_them():
    packed = attrs.evolve(changed(pack(rows_of([10, 11])), [1, 2]), tag="causal")
    assert pairs(NextToken(binding()).targets(packed)) == [(0, 10), (1, 11)]


def test_the_head_of_next_token_is_told_where_the_wanted_position_lies():
    packed = attrs.evolve(pack(rows_of([10, 11, 12])), tag="causal")
    output = NextToken(binding())
    targets, head, hidden = output.targets(packed), output.head(), states_for(packed)
    far = attrs.evolve(targets, extra={"offset": targets.extra["offset"] + 3})
    assert torch.equal(output.losses(head, hidden, targets), output.losses(head, hidden, far))
    torch.nn.init.normal_(head.place.weight, generator=torch.Generator().manual_seed(0))
    moved = output.losses(head, hidden, targets) - output.losses(head, hidden, far)
    assert (moved.abs() > 0).all()


def test_next_token_refuses_a_rule_without_order():
    with pytest.raises(PluginError, match="found 'full'"):
        NextToken(binding()).targets(pack(rows_of([10])))


def test_span_boundary_reads_both_sides_of_each_run():
    packed = changed(pack(rows_of([10, 11, 12, 13, 14], [20, 21])), [2, 3, 5, 8, 9])
    targets = SpanBoundary(binding()).targets(packed)
    assert targets.index.tolist() == [[1, 4], [1, 4], [4, 6], [7, 10], [7, 10]]
    assert targets.value.tolist() == [11, 12, 14, 20, 21]
    assert targets.extra["place"].tolist() == [0, 1, 0, 0, 1]


def test_span_boundary_leaves_out_runs_without_a_neighbour():
    rows = [attrs.evolve(row, special=row.special & False) for row in rows_of([10, 11], [20])]
    packed = changed(pack(rows), [3, 4, 5])  # the end of one row and the start of the next
    assert len(SpanBoundary(binding()).targets(packed)) == 0


def test_span_boundary_never_reads_inside_the_span():
    packed = changed(pack(rows_of([10, 11, 12, 13, 14])), [2, 3])
    output = SpanBoundary(binding())
    targets, head, hidden = output.targets(packed), output.head(), states_for(packed)
    hidden.states.requires_grad_()
    (gradient,) = torch.autograd.grad(output.losses(head, hidden, targets).sum(), hidden.states)
    assert gradient.abs().sum(-1).nonzero().flatten().tolist() == [1, 4]


@pytest.mark.parametrize("kind", [Denoise, NextToken, SpanBoundary])
def test_features_and_decode_make_up_the_losses(kind):
    packed = changed(pack(rows_of([10, 11, 12, 13], [20, 21])), [2, 3])
    packed = attrs.evolve(packed, tag="causal")
    output = kind(binding())
    targets, head, hidden = output.targets(packed), output.head(), states_for(packed)
    features = output.features(head, hidden, targets)
    assert features.shape == (len(targets), BACKBONE.embedding_size)
    logits = output.decode(head, features)
    slow = F.cross_entropy(logits, targets.value, reduction="none")
    assert torch.equal(output.losses(head, hidden, targets), slow)


def test_real_synthetic_asks_every_position():
    packed = changed(pack(rows_of([10, 11, 50])), [1, 3], to=50)
    # the last token was replaced by itself, and so is real
    targets = RealSynthetic(binding()).targets(packed)
    assert pairs(targets) == [(1, 1), (2, 0), (3, 0)]


def test_capitalization_has_three_classes_and_spares_special_positions():
    output = Capitalization(binding())
    packed = pack(rows_of([10, 11, 12, 13]))
    assert pairs(output.targets(packed)) == [(1, 0), (2, 1), (3, 2), (4, 0)]
    assert output.head()(states_for(packed).states).shape == (6, 3)


def test_capitalization_needs_rows_that_say_how_they_are_written():
    rows = [attrs.evolve(row, marks={"word": row.special.long()}) for row in rows_of([10])]
    with pytest.raises(ModelError, match="the mark 'cased', found word"):
        Capitalization(binding(Given(rows)))


def test_token_labels_counts_the_tags_of_its_source():
    output = TokenLabels(binding())
    assert output.outputs == 3
    with pytest.raises(TaskError, match="expected texts with tags"):
        TokenLabels(binding(Given(rows_of([10]))))


def test_term_frequencies_of_a_row():
    packed = pack(rows_of([10, 11, 10, 12], [20]))
    targets = TermFrequency(binding()).targets(packed)
    assert targets.value.tolist() == [1.0, 0.5, 1.0, 0.5, 1.0]
    assert targets.index.tolist() == [1, 2, 3, 4, 7]


def test_document_frequencies_count_each_document_once():
    corpus = rows_of([10, 10, 11], [10, 12], [10, 13], documents=[0, 0, 1])
    output = TfIdf(binding(Given(corpus)))
    assert output.state()["documents"] == 2
    everywhere, rare = math.log(3 / 3) + 1, math.log(3 / 2) + 1
    assert math.isclose(float(output.idf[10]), everywhere)
    assert math.isclose(float(output.idf[13]), rare, rel_tol=1e-6)
    values = output.targets(pack(rows_of([10, 10, 13]))).value
    expected = [1.0, 1.0, rare / (2 * everywhere)]
    assert torch.allclose(values, torch.tensor(expected))


def test_one_document_is_too_few_for_tf_idf():
    with pytest.raises(TaskError, match="at least two documents, found 1"):
        TfIdf(binding(Given(rows_of([10], [11], documents=[0, 0]))))


def test_new_heads_are_equal_for_equal_seeds_and_differ_otherwise():
    def weight(seed):
        made = RealSynthetic(Binding(task=TASK, backbone=BACKBONE, options={}, seed=seed)).head()
        return made.dense.weight

    assert torch.equal(weight(0), weight(0))
    assert not torch.equal(weight(0), weight(1))


def test_an_unknown_decoder_and_an_encoder_without_vocabulary_are_refused():
    with pytest.raises(ConfigError, match="tied, untied, found 'both'"):
        Denoise(binding(decoder="both"))
    plain = tiny_backbone()
    plain.vocabulary_head = None
    with pytest.raises(ModelError, match="denoise: expected an encoder that has vocabulary_head"):
        Denoise(Binding(task=TASK, backbone=plain, options={}))


def test_training_on_one_batch_lowers_every_loss():
    packed = attrs.evolve(
        changed(pack(rows_of([10, 11, 12, 13], [20, 21, 22])), [2, 3]), tag="causal"
    )
    rows = [
        attrs.evolve(row, marks={**row.marks, "tag": row.marks["cased"]}) for row in SOURCE.rows()
    ]
    source = Given(rows)
    packed = attrs.evolve(packed, marks={**packed.marks, "tag": packed.marks["cased"]})
    for kind in (
        Denoise,
        NextToken,
        SpanBoundary,
        RealSynthetic,
        Capitalization,
        TokenLabels,
        TermFrequency,
        TfIdf,
    ):
        output = kind(binding(source))
        targets, head, hidden = output.targets(packed), output.head(), states_for(packed)
        optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
        losses = []
        for _ in range(10):
            optimiser.zero_grad()
            loss = output.losses(head, hidden, targets).mean()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0], kind.name
