"""`agree`, `same-class` and `class-contrast` against slow readings of their definitions, and their rows."""

import math

import pytest
import torch
from _steps import bind
from aang_text.data.labelled_pairs import LabelledPairs

from aang_core.batch.packing import pack, prepare
from aang_core.batch.protocols import Teaching
from aang_core.batch.rows import Hidden, Layout
from aang_core.errors import TaskError
from aang_core.testing import tiny_backbone, tiny_task


def output_of(name, **options):
    task, backbone = tiny_task(), tiny_backbone(torch.float64)
    source = "unlabelled" if name == "agree" else "task"
    key = name.replace("-", "_")
    ids = (f"{source}/no-op/bidirectional/{name}",)
    (objective,) = bind(task, backbone, ids, **{key: options})
    return objective


def teaching(answers, elapsed=1.0, memory=None, **others):
    return Teaching(answers=answers, elapsed=elapsed, memory=memory or {}, **others)


def test_agreement_written_out():
    objective = output_of("agree", temperature=0.5, memory_decay=0.8, ramp=[0.2, 0.6])
    output, draw = objective.output, torch.Generator().manual_seed(0)
    piece = prepare(objective, 5, draw)
    classes = output.task.num_outputs
    answers = torch.randn(5, classes, generator=draw, dtype=torch.float64) * 2
    memory = output.memory()
    new, kept = output.taught(piece.targets, teaching(answers, 0.3, memory))
    labels = list(output.task.splits["train"]["label"])
    shares = [(labels.count(c) + 1) / (len(labels) + classes) for c in range(classes)]
    said = answers.softmax(-1)
    mean = [0.8 * shares[c] + 0.2 * float(said[:, c].mean()) for c in range(classes)]
    for row in range(5):
        aligned = [float(said[row, c]) * shares[c] / mean[c] for c in range(classes)]
        aligned = [a / sum(aligned) for a in aligned]
        sharp = [a**2 for a in aligned]
        expected = torch.tensor([s / sum(sharp) for s in sharp], dtype=torch.float64)
        torch.testing.assert_close(new.value[row], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(kept["answers"], torch.tensor(mean), rtol=1e-5, atol=1e-7)
    assert new.weight.tolist() == pytest.approx([0.25] * 5)  # a quarter of the way up the ramp

    hidden = Hidden(
        torch.randn(int(piece.packed.offsets[-1]), 32, generator=draw, dtype=torch.float64)[
            :, : objective.output.backbone.hidden_size
        ],
        piece.packed.offsets,
    )
    head = output.head().eval()
    losses = output.losses(head, hidden, new)
    logits = head(hidden, torch.arange(5)).detach()
    for row in range(5):
        log = logits[row].log_softmax(-1)
        expected = -sum(float(new.value[row, c]) * float(log[c]) for c in range(classes))
        assert float(losses[row]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gate", ["none", "fixed", "relative", "soft"])
def test_gates_written_out(gate):
    objective = output_of("agree", gate=gate, threshold=0.6, align=False, memory_decay=0.0)
    output, draw = objective.output, torch.Generator().manual_seed(1)
    targets = prepare(objective, 8, draw).targets
    answers = 2 * torch.randn(8, output.task.num_outputs, generator=draw, dtype=torch.float64)
    labelled = 2 * torch.randn(6, output.task.num_outputs, generator=draw, dtype=torch.float64)
    assert output.asks_labelled is (gate == "relative")
    new, _ = output.taught(targets, teaching(answers, 1.0, output.memory(), labelled=labelled))
    sure = answers.softmax(-1).amax(-1).tolist()
    bound = {"fixed": 0.6, "relative": 0.6 * float(labelled.softmax(-1).amax(-1).mean())}
    mean = sum(sure) / 8
    variance = sum((s - mean) ** 2 for s in sure) / 8
    for weight, confidence in zip(new.weight.tolist(), sure, strict=True):
        if gate == "none":
            assert weight == 1
        elif gate == "soft":
            below = min(confidence - mean, 0)
            assert weight == pytest.approx(math.exp(-(below**2) / (2 * variance / 4)), rel=1e-4)
        else:
            assert weight == float(confidence >= bound[gate])
    assert gate == "none" or len(set(new.weight.tolist())) > 1


def test_pairs_of_texts_written_out():
    objective = output_of("same-class")
    draw = torch.Generator().manual_seed(2)
    piece = prepare(objective, 8, draw)
    labels = [int(label) for label in piece.packed.labels]
    same = [float(labels[i] == labels[i + 1]) for i in range(0, 8, 2)]
    assert piece.targets.value.tolist() == same
    assert same == [1.0, 0.0, 1.0, 0.0]
    states = torch.randn(int(piece.packed.offsets[-1]), 6, generator=draw, dtype=torch.float64)
    hidden = Hidden(states, piece.packed.offsets)
    found = objective.output.losses(objective.output.head(), hidden, piece.targets)
    means = [part.mean(0) for part in states.split(piece.packed.lengths.tolist())]
    for i, value in enumerate(same):
        one, other = means[2 * i], means[2 * i + 1]
        cosine = float(one @ other / (one.norm() * other.norm()))
        assert float(found[i]) == pytest.approx((cosine - value) ** 2, rel=1e-9)


def test_contrast_of_classes_written_out():
    objective = output_of("class-contrast", temperature=0.2, pooling="first")
    draw = torch.Generator().manual_seed(3)
    piece = prepare(objective, 8, draw)
    labels = [int(label) for label in piece.packed.labels]
    states = torch.randn(int(piece.packed.offsets[-1]), 6, generator=draw, dtype=torch.float64)
    hidden = Hidden(states, piece.packed.offsets)
    found = objective.output.losses(objective.output.head(), hidden, piece.targets)
    first = [states[start] / states[start].norm() for start in piece.packed.offsets[:-1].tolist()]
    for i in range(8):
        scores = {j: float(first[i] @ first[j]) / 0.2 for j in range(8) if j != i}
        total = math.log(sum(math.exp(s) for s in scores.values()))
        partners = [j for j in scores if labels[j] == labels[i]]
        expected = -sum(scores[j] - total for j in partners) / max(1, len(partners))
        assert float(found[i]) == pytest.approx(expected if partners else 0.0, rel=1e-8)
        assert (float(piece.targets.weight[i]) > 0) is bool(partners)
    assert float(piece.targets.weight.mean()) == pytest.approx(1.0)


def test_pairs_are_balanced_over_the_classes_and_of_two_rows():
    labels = [0] * 90 + [1] * 8 + [2] * 2
    pairs = LabelledPairs(labels, "task").draw(3000, torch.Generator().manual_seed(0))
    same = [labels[one] for one, other, answer in pairs if answer]
    assert len(same) == 1500
    for label in (0, 1, 2):
        assert same.count(label) == pytest.approx(500, abs=80)
    assert all(one != other for one, other, _ in pairs)
    assert all((labels[one] == labels[other]) == bool(answer) for one, other, answer in pairs)


@pytest.mark.parametrize(
    ("labels", "answers"), [([0, 1, 2], {0}), ([0, 0, 0], {1}), ([0, 0, 1], {0, 1})]
)
def test_classes_of_one_row_and_a_single_class_are_paired_as_they_can(labels, answers):
    pairs = LabelledPairs(labels, "task").draw(20, torch.Generator().manual_seed(0))
    assert {answer for *_, answer in pairs} == answers


def test_one_row_makes_no_pair():
    with pytest.raises(TaskError, match="expected labelled rows"):
        LabelledPairs([0], "task")


def test_unlabelled_texts_are_those_without_labels():
    (objective,) = bind(
        tiny_task(), tiny_backbone(torch.float64), ("unlabelled/no-op/bidirectional/agree",)
    )
    rows = objective.source.draw(Layout(), 10, torch.Generator().manual_seed(0))
    assert all(row.label is None for row in rows)
    assert len(objective.source) == len(tiny_task().unlabelled)
    assert pack(rows).labels == (None,) * 10
