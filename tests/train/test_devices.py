"""What a step asks of a device, tried without one: it waits for it but once, and its batches come page-locked.

(The engine ``fused`` also waits once for each embedding table, for the number of distinct rows that were read.)

The stand-in is torch's ``meta`` device. Its tensors have shapes and no values, so that whatever would make a processor
wait for a GPU (``.item()``, ``.tolist()``, ``bool()``, ``.cpu()``, ``nonzero``, a boolean index) is an error there.
"""

import pytest
import torch
from _steps import bind
from aang_text.encoder.backbone import load
from torch import Tensor

from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Hidden
from aang_core.config.settings import RunConfig
from aang_core.method.gradient import tracked_layers
from aang_core.method.gradient.metagrad import Alignment
from aang_core.method.weights.chosen import chosen_weighting
from aang_core.processes import Processes
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_task
from aang_core.train import step as steps
from aang_core.train.optimizer import fuses, optimizer_for
from aang_core.train.session import build_session
from aang_core.train.step import Preparation, train_step

NOWHERE = torch.device("meta")
OBJECTIVES = (
    "task/bert-op/bidirectional/denoise",
    "task/mask/bidirectional/agree",
    "task/no-op/bidirectional/same-class",
    "task/replace/left-to-right/next-token",
    "task/no-op/bidirectional/tf-idf",
    "task/noise-embeddings/bidirectional/end-task",
)
TRAINING = {"end_task_rows": 4, "auxiliary_rows": 12, "teacher_precision": "fp32"}
META = {"rule": "aang", "objectives_per_step": 6, "dev_rows": 4, "dev_gradient_every": 1}


def session_on(device, pooling="mean", **changed):
    """A session of a real encoder whose parameters lie on a device; rows and weights lie on the CPU as ever."""
    backbone = load("scratch:tiny", BackboneSettings(device="cpu", pooling=pooling))
    task = tiny_task()
    objectives = bind(task, backbone, OBJECTIVES)
    backbone.end_task_head(task)
    backbone.device = device
    backbone.body.to(device)
    table = {"method": "aang", "training": TRAINING, "meta": META, **changed}
    config = RunConfig.from_mapping(table)
    rule = chosen_weighting(config, load_registry())
    return build_session(config, 0, task, backbone, objectives, Processes(), rule)


def told(losses, alignment, norm):
    """In place of the one read of a step: numbers as a device would give."""
    one = torch.ones(len(losses), dtype=torch.float64)
    if alignment is not None:
        assert alignment.dots.device == alignment.dev_norm.device == NOWHERE
        alignment = type(alignment)(one / 2, one, one > 0, one[0])
    assert losses.device == norm.device == NOWHERE
    return one, alignment, one[0]


class Distinct:
    """In place of `torch.unique`, which waits for the number of distinct values; counts its calls."""

    def __init__(self):
        self.calls, self.own = 0, torch.unique

    def __call__(self, keys, **options):
        if keys.device != NOWHERE:
            return self.own(keys, **options)
        self.calls += 1
        return torch.empty_like(keys), torch.empty_like(keys)


@pytest.mark.parametrize("pooling", ["default", "mean"])
@pytest.mark.parametrize("engine", ["fused", "looped"])
def test_a_step_waits_for_its_device_once(engine, pooling, monkeypatch):
    session = session_on(NOWHERE, pooling, meta={**META, "engine": engine})
    distinct = Distinct()
    monkeypatch.setattr(steps, "_read", told)
    monkeypatch.setattr(tracked_layers, "_cast", lambda x: x)  # autocast does not know the stand-in
    monkeypatch.setattr(torch, "unique", distinct)
    preparation = Preparation(session, "joint", 4)
    for number in range(2):
        before = session.weights.objectives
        record = train_step(session, preparation, number, 4)
        assert not record.skipped
        assert record.alignments, "the dev gradient was there"
        assert not torch.equal(session.weights.objectives, before)
    preparation.close()
    assert session.slow is not None
    assert session.slow.steps == 2
    assert distinct.calls <= 2 * 3, "`fused` asks each embedding table how many rows it has read"


def test_the_stand_in_refuses_to_be_waited_for():
    there = torch.ones(3, device=NOWHERE)
    for wait in (Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.nonzero, lambda t: bool(t.any())):
        with pytest.raises(RuntimeError):  # of which what torch has not for a device is a kind
            wait(there[:1])


def test_a_step_reads_its_numbers_without_changing_a_bit():
    draw = torch.Generator().manual_seed(0)
    dots, squares, losses = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    norm = torch.randn((), generator=draw)
    alignment = Alignment(dots, squares.square(), dots > 0, norm.abs())
    told = steps._read(losses, alignment, norm)
    assert torch.equal(told[0], losses)
    assert torch.equal(told[2], norm.double())
    for name in ("dots", "squared_norms", "observed"):
        assert torch.equal(getattr(told[1], name), getattr(alignment, name))
    assert torch.equal(told[1].cosines(), alignment.cosines())


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_batches_for_cuda_are_page_locked(device, pinned, monkeypatch):
    """The batch of a coming step, in the thread that prepares it."""
    session = session_on(torch.device("cpu"))
    session.engine.device = torch.device(device)
    locked = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda t: locked.append(t) or t)
    preparation = Preparation(session, "joint", 4)
    _, _, batch = preparation.drawn(0)
    preparation.close()
    tensors = [*batch.inputs.values(), *(t.index for t in batch.targets)]
    assert all(any(t is each for each in locked) for t in tensors) == pinned
    assert bool(locked) == pinned


def test_a_batch_keeps_its_values_on_the_way():
    """Through pinned memory, which is a copy of the same numbers; here the copy is an ordinary one."""
    session = session_on(torch.device("cpu"))
    plan = session.planner.plan(0, session.weights)
    _, batch = session.planner.batch(plan, Processes())
    moved = batch._moved(Tensor.clone)
    assert moved.segments == batch.segments
    assert moved.rules == batch.rules
    assert all(torch.equal(moved.inputs[n], t) for n, t in batch.inputs.items())
    assert len(moved.asked) == len(batch.asked)
    for own, other in zip(moved.targets, batch.targets, strict=True):
        assert torch.equal(own.index, other.index)
        assert torch.equal(own.value, other.value)


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("meta", False)])
def test_one_kernel_updates_everything_where_the_device_has_one(device, fused):
    weight = torch.nn.Parameter(torch.ones(2, 2, device=device))
    optimizer = optimizer_for({"body.weight": weight}, set(), RunConfig().training)
    assert optimizer.defaults["fused"] is fused


def test_cuda_has_one():
    class Elsewhere:
        device = torch.device("cuda", 0)

    assert fuses([Elsewhere()])
    assert not fuses([Elsewhere(), torch.ones(2, device=NOWHERE)])


def test_padded_rows_are_the_same_without_asking_a_device():
    """On a device no length is read: rows are padded to the longest of the whole stream."""
    states = torch.arange(18.0).reshape(9, 2)
    hidden = Hidden(states=states, offsets=torch.tensor([0, 2, 3, 7, 9]))
    padded, mask = hidden.padded(torch.tensor([3, 1]))
    assert padded.tolist() == [[[14, 15], [16, 17]], [[4, 5], [0, 0]]]
    assert mask.tolist() == [[True, True], [True, False]]
    there = Hidden(states=states.to(NOWHERE), offsets=hidden.offsets)
    padded, mask = there.padded(torch.tensor([3, 1], device=NOWHERE))
    assert padded.shape == (2, 4, 2)
    assert mask.shape == (2, 4)
