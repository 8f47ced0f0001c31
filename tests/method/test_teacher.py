"""The teacher's answers against a copy of the model asked row by row, in float64; its memory; its place in a step."""

from copy import deepcopy

import attrs
import pytest
import torch
from _steps import bind, make_step

from aang_core.batch.packing import Piece, fuse, pack, plain_batch, prepare
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin
from aang_core.batch.stream import FULL
from aang_core.errors import PluginError
from aang_core.method.end_task import EndTask
from aang_core.method.gradient.metagrad import Model, disagreement, fused, looped
from aang_core.method.heads import ObjectiveHeads
from aang_core.method.slow_copy import SlowCopy
from aang_core.method.teacher import Teacher, slow_answers
from aang_core.processes import Processes
from aang_core.testing import tiny_backbone, tiny_task

AGREE = "unlabelled/mask/bidirectional/agree"
SHORTER = "unlabelled/delete/bidirectional/agree"
IDS = (AGREE, "task/bert-op/bidirectional/denoise", SHORTER)


@attrs.frozen(eq=False)
class Class:
    """A model, its teacher one step behind, and a batch that asks."""

    task: object
    model: Model
    teacher: Teacher
    batch: object
    labelled: list


def classroom(policy="per-output", **options) -> Class:
    backbone, task = tiny_backbone(torch.float64), tiny_task()
    examples = list(task.splits["train"])
    labelled = backbone.rows(examples, [Origin("train", i, 0) for i in range(len(examples))])
    end_task = EndTask(Binding(task=task, backbone=backbone, options={}))
    objectives = bind(task, backbone, IDS, **options)
    heads = ObjectiveHeads(end_task, objectives, policy).double()
    model = Model(backbone, heads)
    own = {f"body.{n}": p for n, p in backbone.body.named_parameters()}
    own |= {f"heads.{n}": p for n, p in heads.head(0).named_parameters()}
    slow = SlowCopy(own, 0.5)
    draw = torch.Generator().manual_seed(3)
    for parameter in own.values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    packed = pack(labelled[:4])
    pieces = [(0, Piece(packed, (FULL,) * 4, end_task.targets(packed)))]
    pieces += [(1 + k, prepare(o, 3, draw, elapsed=0.5)) for k, o in enumerate(objectives)]
    teacher = Teacher(model, task, slow, objectives)
    return Class(task, model, teacher, fuse(pieces), labelled[:4])


def plain_answers(room: Class, rows) -> torch.Tensor:
    """Logits of the slow copy, from a whole copy of the model and one row at a time."""
    body, head = deepcopy(room.model.backbone.body), deepcopy(room.model.heads.head(0))
    slow = room.teacher.slow.mean
    for prefix, module in (("body.", body), ("heads.", head)):
        for name, parameter in module.named_parameters():
            parameter.data.copy_(slow[prefix + name])
    backbone = deepcopy(room.model.backbone)
    backbone.body = body
    body.eval()
    head.eval()
    with torch.no_grad():
        return torch.cat([head(backbone.encode(plain_batch([r])), torch.tensor([0])) for r in rows])


def test_answers_are_the_slow_copys_to_the_rows_before_their_transform():
    room = classroom(agree={"align": False, "temperature": 1.0, "ramp": [0.0, 0.0]})
    lesson = room.teacher.teach(room.batch, elapsed=0.5)
    for i in (1, 3):
        asked = room.batch.asked[i]
        pieces = asked.inputs["input_ids"].split(list(asked.lengths))
        assert len(pieces) == 3
        source = room.teacher.objectives[i - 1].source
        known = {tuple(row.inputs["input_ids"].tolist()): row for row in source.rows()}
        rows = [known[tuple(piece.tolist())] for piece in pieces]
        expected = plain_answers(room, rows).softmax(-1)
        # the loss is computed in the precision of answers, fp32
        torch.testing.assert_close(
            lesson.batch.targets[i].value.double(), expected, rtol=1e-5, atol=1e-6
        )
    shown, asked = room.batch.select([3]), room.batch.asked[3]
    assert shown.tokens < asked.tokens, "delete shortens what the student sees, not the teacher"
    assert lesson.tokens == room.batch.asked[1].tokens + asked.tokens
    assert room.batch.asked[0] is None
    assert room.batch.asked[2] is None


def test_a_teacher_in_bf16_says_nearly_the_same_and_the_rest_of_the_step_stays_in_fp32():
    room = classroom(agree={"align": False, "temperature": 1.0, "ramp": [0.0, 0.0]})
    model, slow = room.model, room.teacher.slow
    for module in (model.backbone.body, model.heads):
        module.float()
    slow.mean = {name: tensor.float() for name, tensor in slow.mean.items()}
    exact = room.teacher.teach(room.batch, 0.5).batch.targets[1].value
    before = {name: parameter.clone() for name, parameter in slow.parameters.items()}
    stream = room.batch.asked[1]
    slow.precision = "bf16"
    _, logits = slow_answers(model, slow, stream, torch.arange(3))
    assert logits.dtype == torch.bfloat16
    said = room.teacher.teach(room.batch, 0.5).batch.targets[1].value
    assert said.dtype == torch.float32
    assert not torch.equal(said, exact)
    torch.testing.assert_close(said, exact, rtol=0.05, atol=0.01)
    assert not torch.is_autocast_enabled("cpu")
    assert all(torch.equal(parameter, before[name]) for name, parameter in slow.parameters.items())


def test_asking_changes_neither_model_nor_teacher():
    room = classroom()
    before = {n: p.detach().clone() for n, p in room.teacher.slow.parameters.items()}
    slow = {n: t.clone() for n, t in room.teacher.slow.mean.items()}
    room.model.backbone.body.train()
    room.teacher.teach(room.batch, 0.5)
    assert room.model.backbone.body.training
    assert all(torch.equal(p, before[n]) for n, p in room.teacher.slow.parameters.items())
    assert all(torch.equal(t, slow[n]) for n, t in room.teacher.slow.mean.items())
    assert all(p.grad is None for p in room.teacher.slow.parameters.values())


@pytest.mark.parametrize("policy", ["per-output", "per-objective"])
def test_agreement_trains_the_end_tasks_head_under_either_policy(policy):
    room = classroom(policy)
    heads = room.model.heads
    assert heads.head(1) is heads.head(0)
    assert heads.head(3) is heads.head(0)
    assert (heads.head(2) is heads.head(0)) is False


def test_one_backward_pass_equals_one_per_objective_with_teaching():
    room = classroom()
    batch = room.teacher.teach(room.batch, 0.3).batch
    coefficients = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    draw = torch.Generator().manual_seed(5)
    dev = {
        n: torch.randn(p.shape, generator=draw, dtype=torch.float64)
        for n, p in room.model.body().items()
    }
    room.model.backbone.body.eval()
    room.model.heads.eval()
    one = fused(room.model, batch, coefficients, dev)
    gradients = {n: p.grad.clone() for n, p in room.teacher.slow.parameters.items()}
    for parameter in room.teacher.slow.parameters.values():
        parameter.grad = None
    other = looped(room.model, batch, coefficients, dev)
    assert disagreement(one, other) < 1e-12
    torch.testing.assert_close(one.losses, other.losses, rtol=1e-12, atol=1e-12)
    for name, parameter in room.teacher.slow.parameters.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-9, atol=1e-12)
    assert bool(one.alignment.observed.all())


def test_memory_follows_the_answers_and_only_when_it_is_told_to():
    room = classroom(agree={"memory_decay": 0.5})
    before = room.teacher.memories[1]["answers"].clone()
    lesson = room.teacher.teach(room.batch, 0.5)
    assert torch.equal(room.teacher.memories[1]["answers"], before)
    room.teacher.remember(lesson.memories, [0, 1, 2, 3], Processes())
    after = room.teacher.memories[1]["answers"]
    assert not torch.equal(after, before)
    assert float(after.sum()) == pytest.approx(1.0, abs=1e-5)
    room.teacher.remember({}, [0, 2], Processes())  # the objective had no rows in this step
    assert torch.equal(room.teacher.memories[1]["answers"], after)


def test_labelled_rows_are_answered_where_an_output_asks_for_them():
    room = classroom(agree={"gate": "relative", "threshold": 1.0, "ramp": [0.0, 0.0]})
    assert room.teacher.asks_labelled([0, 1])
    assert not room.teacher.asks_labelled([0, 2])
    lesson = room.teacher.teach(room.batch, 0.5, room.labelled)
    bound = plain_answers(room, room.labelled).softmax(-1).amax(-1).mean()
    said = lesson.batch.targets[1]
    sure = said.weight > 0
    asked = room.batch.asked[1]
    assert lesson.tokens == asked.tokens + room.batch.asked[3].tokens + sum(
        len(row) for row in room.labelled
    )
    assert len(sure) == 3
    assert 0 < float(bound) <= 1


def test_an_output_that_forgets_what_it_remembers_is_named():
    room = classroom()
    output = room.teacher.objectives[0].output
    output.taught = lambda targets, teaching: (targets, {})
    with pytest.raises(PluginError, match="expected the memory"):
        room.teacher.teach(room.batch, 0.5)


def test_without_its_own_rule_an_output_finds_the_answers_in_extra():
    room = classroom()

    class Asking:
        asks_teacher = True

    for k in (0, 2):
        objective = attrs.evolve(room.teacher.objectives[k], output=Asking())
        room.teacher.objectives[k] = objective
    room.teacher.memories.clear()
    lesson = room.teacher.teach(room.batch, 0.5)
    assert lesson.batch.targets[1].extra["teacher"].shape == (3, room.task.num_outputs)


def test_weights_of_targets_multiply_the_losses_and_not_the_divisor():
    step = make_step()
    targets = list(step.batch.targets)
    plain = step.model.heads.losses(step.model.backbone.encode(step.batch), step.batch)
    targets[0] = attrs.evolve(targets[0], weight=torch.full((len(targets[0]),), 0.5))
    batch = attrs.evolve(step.batch, targets=tuple(targets))
    weighted = step.model.heads.losses(step.model.backbone.encode(batch), batch)
    torch.testing.assert_close(weighted[0], plain[0] / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(weighted[1:], plain[1:], rtol=1e-12, atol=0)
