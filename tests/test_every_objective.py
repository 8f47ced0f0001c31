"""Every legal objective over single texts trains: finite losses, gradients in the encoder, progress."""

import copy

import pytest
import torch

from aang_core.batching import BoundObjective, fuse, prepare
from aang_core.binding import settings_of
from aang_core.objectives import Legal, enumerate_objectives
from aang_core.primitives import Block, Space, load_factory
from aang_core.protocols import Binding
from aang_core.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

REGISTRY = load_registry()
STEPS = 3


def single_text_objectives():
    names = {stage: REGISTRY.at_stage(stage) for stage in ("transform", "representation", "output")}
    space = Space(name="all", summary="", blocks=(Block(data=("task",), **names),))
    backbone = tiny_backbone()
    verdicts = enumerate_objectives(
        space,
        REGISTRY,
        provided={"task": frozenset({"data:tags"})},
        backbone_capabilities=backbone.capabilities,
    )
    return [verdict.objective for verdict in verdicts if isinstance(verdict, Legal)]


OBJECTIVES = single_text_objectives()


@pytest.fixture(scope="module")
def bound():
    """One encoder, and every primitive bound to it once."""
    task, backbone = tiny_task(tags=True), tiny_backbone(torch.float64)
    made = {}

    def bind(name, source=None):
        if (name, source) not in made:
            record = REGISTRY.primitive(name)
            binding = Binding(
                task=task, backbone=backbone, options=settings_of(record, {}), source=source
            )
            made[name, source] = load_factory(record.factory)(binding)
        return made[name, source]

    return backbone, bind


@pytest.mark.parametrize("output", sorted({objective.output for objective in OBJECTIVES}))
def test_three_steps_on_one_batch(output, bound):
    backbone, bind = bound
    fresh = copy.deepcopy(backbone.body.state_dict())
    for objective in [each for each in OBJECTIVES if each.output == output]:
        backbone.body.load_state_dict(fresh)
        source = bind(objective.data)
        whole = BoundObjective(
            objective.id,
            source,
            bind(objective.transform),
            bind(objective.representation),
            bind(objective.output, source),
        )
        losses = train(backbone, whole)
        assert torch.tensor(losses).isfinite().all(), objective.id
        assert losses[-1] < losses[0], objective.id


def train(backbone, objective):
    """The losses before each step and after the last, on one batch."""
    piece = prepare(objective, 6, torch.Generator().manual_seed(0))
    batch = fuse([(0, piece)])
    head = objective.output.head()
    parameters = [*backbone.body.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    losses = []
    for _ in range(STEPS + 1):
        optimiser.zero_grad()
        hidden = backbone.encode(batch)
        loss = objective.output.losses(head, hidden, piece.targets).mean()
        loss.backward()
        losses.append(float(loss.detach()))
        reached = max(float(p.grad.abs().max()) for p in backbone.body.layers.parameters())
        assert reached > 0, objective.id
        optimiser.step()
    return losses


def test_there_are_many():
    assert len(OBJECTIVES) > 200
    assert len({each.representation for each in OBJECTIVES}) >= 5
