"""Outputs over two texts and over the texts of a step: targets by hand, losses against slow readings."""

import math

import attrs
import pytest
import torch
from aang_text.data.sources import AuxTexts
from aang_text.outputs.contrast import Contrastive, FirstSentence, QuickThoughts
from aang_text.outputs.structure import AdjacentSentence, NextSentence, SentenceOrder
from aang_text.outputs.supervised import Supervised

from aang_core.batch.packing import BoundObjective, Piece, fuse, pack
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Hidden, Layout, Origin, Row
from aang_core.batch.stream import FULL, Segment
from aang_core.errors import ConfigError, PluginError, TaskError
from aang_core.method.end_task import EndTask
from aang_core.method.gradient.engine import cut_rows
from aang_core.method.heads import ObjectiveHeads
from aang_core.testing import tiny_backbone, tiny_source, tiny_task

BACKBONE = tiny_backbone(torch.float64)
TASK = tiny_task()
SOURCE = tiny_source(TASK, BACKBONE)


def binding(source=SOURCE, **options):
    return Binding(task=TASK, backbone=BACKBONE, options=options, source=source)


def packed_at(*places, structure=None):
    """Rows of three positions that stand at these (document, index)."""
    rows = []
    for n, place in enumerate(places):
        inputs = {"input_ids": torch.tensor([1, 10 + n, 2])}
        special = torch.tensor([True, False, True])
        answer = None if structure is None else structure[n]
        rows.append(Row(inputs, special, Origin("made", *place), structure=answer))
    return pack(rows)


def states_for(packed, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(len(packed.special), 32, generator=generator, dtype=torch.float64)
    return Hidden(states, packed.offsets)


def slow_loss(scores, own, allowed):
    """−log of the own candidate's share among those that take part, one number at a time."""
    total = sum(math.exp(scores[j]) for j in allowed)
    return -math.log(math.exp(scores[own]) / total)


@pytest.mark.parametrize(("kind", "classes"), [(NextSentence, 2), (AdjacentSentence, 3)])
def test_a_question_about_two_texts_has_one_target_a_row(kind, classes):
    output = kind(binding())
    packed = packed_at((0, 0), (1, 0), (2, 0), structure=[0, 1, classes - 1])
    targets = output.targets(packed)
    assert targets.level == "row"
    assert targets.index.tolist() == [0, 1, 2]
    assert targets.value.tolist() == [0, 1, classes - 1]
    head, hidden = output.head(), states_for(packed)
    logits = head(hidden.states[[0, 3, 6]])
    assert logits.shape == (3, classes)
    slow = [-math.log(logits[i].detach().softmax(-1)[v]) for i, v in enumerate(targets.value)]
    assert torch.allclose(output.losses(head, hidden, targets), torch.tensor(slow).double())


def test_a_source_that_answers_no_question_is_named():
    with pytest.raises(PluginError, match="sentence-order: expected rows that answer"):
        SentenceOrder(binding()).targets(packed_at((0, 0)))


def test_quick_thoughts_asks_every_row_for_its_neighbour():
    # rows 0/1 and 2/3 are neighbours; row 4 stands beside row 1 in the text, but is row 5's partner
    packed = packed_at((0, 3), (0, 4), (7, 0), (7, 1), (0, 5), (0, 6))
    output = QuickThoughts(binding())
    targets = output.targets(packed)
    assert targets.index.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2], [4, 5], [5, 4]]
    # candidate j is the partner of row j; nobody is asked about itself, and 1 and 4 are true neighbours
    candidates = [1, 0, 3, 2, 5, 4]
    close = {(1, 4), (4, 1)}
    head, hidden = output.head(), states_for(packed)
    first = hidden.states[::3]
    scores = (head.ask(first) @ head.answer(first).T).detach()
    slow = []
    for row in range(6):
        fit = [c for c in candidates if c != row and (row, c) not in close]
        slow.append(slow_loss(scores[row], candidates[row], fit))
    found = output.losses(head, hidden, targets)
    assert torch.allclose(found, torch.tensor(slow).double())


def test_first_sentences_choose_among_the_others_of_other_documents():
    # the second pair comes from the same document as the first: neither is the other's negative
    packed = packed_at((0, 0), (0, 2), (0, 0), (0, 1), (5, 0), (5, 3))
    output = FirstSentence(binding())
    targets = output.targets(packed)
    assert targets.index.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert targets.extra["allowed"].tolist() == [
        [True, False, True],
        [False, True, True],
        [True, True, True],
    ]
    head, hidden = output.head(), states_for(packed)
    first = hidden.states[::3]
    scores = (head.ask(first[::2]) @ head.answer(first[1::2]).T).detach()
    slow = [
        slow_loss(scores[0], 0, [0, 2]),
        slow_loss(scores[1], 1, [1, 2]),
        slow_loss(scores[2], 2, [0, 1, 2]),
    ]
    assert torch.allclose(output.losses(head, hidden, targets), torch.tensor(slow).double())


def test_contrastive_is_the_softmax_of_cosines_over_the_temperature():
    packed = packed_at((0, 0), (0, 0), (1, 0), (1, 0), (0, 0), (0, 0))
    output = Contrastive(binding(temperature=0.5))
    targets = output.targets(packed)
    assert targets.index.tolist() == [[0, 1], [2, 3], [4, 5]]
    head, hidden = output.head(), states_for(packed)
    first = head(hidden.states[::3]).detach()
    unit = first / first.norm(dim=-1, keepdim=True)
    scores = unit[::2] @ unit[1::2].T / 0.5
    # the first and third text are the same one, so that neither is the other's negative
    slow = [
        slow_loss(scores[0], 0, [0, 1]),
        slow_loss(scores[1], 1, [0, 1, 2]),
        slow_loss(scores[2], 2, [1, 2]),
    ]
    assert torch.allclose(output.losses(head, hidden, targets), torch.tensor(slow).double())


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ConfigError, match="temperature: expected a number over 0, found 0"):
        Contrastive(binding(temperature=0))


@pytest.mark.parametrize("kind", [QuickThoughts, FirstSentence, Contrastive])
def test_rows_of_a_step_are_never_cut_apart(kind):
    output = kind(binding())
    assert (output.min_rows, output.row_multiple, output.pointwise) == (4, 2, False)
    packed = packed_at((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    targets = output.targets(packed)
    batch = fuse([(1, Piece(packed, (FULL,) * 6, targets))])
    (kept,) = cut_rows(batch, 0, output, budget=4)
    assert kept.tokens == 18
    assert attrs.asdict(kept.segments[0]) == attrs.asdict(Segment(1, 0, 6, 0, 18, len(targets)))


class Unchanged:
    def apply(self, packed, generator):
        return packed


class Full:
    tag = "full"


AUX = {
    kind: attrs.evolve(tiny_task(kind, seed=3), name=kind)
    for kind in ("class", "regression", "multilabel", "token")
}


def aux_binding(kind, **more):
    task = attrs.evolve(TASK, auxiliary=AUX)
    return Binding(task=task, backbone=BACKBONE, options={"task": kind}, **more)


@pytest.mark.parametrize("kind", AUX)
def test_supervised_learns_another_task_by_its_own_loss(kind):
    source = AuxTexts(aux_binding(kind))
    assert source.name == f"aux:{kind}"
    output = Supervised(aux_binding(kind, source=source))
    assert output.head_name == f"supervised:{kind}"
    packed = pack(source.draw(output.layout, 6, torch.Generator().manual_seed(0)))
    assert {origin.source for origin in packed.origins} == {f"aux:{kind}"}
    targets, head, hidden = output.targets(packed), output.head(), states_for(packed)
    found = output.losses(head, hidden, targets).detach()
    logits = head(hidden.states[targets.index if kind == "token" else packed.offsets[:-1]]).detach()
    for m, value in enumerate(targets.value):
        if kind == "regression":
            slow = (float(logits[m, 0]) - float(value)) ** 2
        elif kind == "multilabel":
            chances = logits[m].sigmoid()
            parts = [math.log(c if v else 1 - c) for c, v in zip(chances, value, strict=True)]
            slow = -sum(parts) / len(parts)
        else:
            slow = -math.log(logits[m].softmax(-1)[value])
        assert float(found[m]) == pytest.approx(slow, rel=1e-5)


def test_labels_of_another_task_are_those_of_its_texts():
    source = AuxTexts(aux_binding("class"))
    for row in source.draw(Layout(relation="label"), 10, torch.Generator().manual_seed(0)):
        assert row.label == AUX["class"].splits["train"]["label"][row.origin.document]


def test_tasks_with_other_classes_have_other_heads_under_every_policy():
    outputs = []
    for kind in ("class", "multilabel"):
        source = AuxTexts(aux_binding(kind))
        output = Supervised(aux_binding(kind, source=source))
        name = f"aux:{kind}/no-op/bidirectional/supervised"
        outputs.append(BoundObjective(name, source, Unchanged(), Full(), output))
    for policy in ("per-output", "per-objective"):
        heads = ObjectiveHeads(EndTask(binding()), outputs, policy)
        assert heads.head(1) is not heads.head(2)


def test_a_further_task_that_is_missing_says_what_to_give():
    with pytest.raises(TaskError, match="found none; give --aux-task TASK"):
        AuxTexts(binding(task=""))
    with pytest.raises(TaskError, match="expected a further task 'rte', found class, mul"):
        AuxTexts(aux_binding("rte"))


def test_a_source_without_a_task_cannot_be_supervised():
    with pytest.raises(PluginError, match="attribute `task`"):
        Supervised(binding(source=None))
