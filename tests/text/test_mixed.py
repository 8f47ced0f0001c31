"""The transform whose proportions follow what the search has learned of its parts."""

import math

import attrs
import pytest
import torch
from aang_text.transforms import Mixed

from aang_core.batch.packing import BoundObjective, prepare
from aang_core.batch.protocols import Binding
from aang_core.config.settings import RunConfig
from aang_core.method.step_plan import Planner
from aang_core.method.weights.weighting import Factors, WeightState
from aang_core.processes import Processes
from aang_core.registry.options import settings_of
from aang_core.registry.records import load_factory
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_packed, tiny_source, tiny_task

REGISTRY = load_registry()
IDS = ("task/mixed/bidirectional/denoise", "task/mask/bidirectional/denoise")


def made(name, source, backbone):
    record = REGISTRY.primitive(name)
    options = settings_of(record, {})
    binding = Binding(task=tiny_task(), backbone=backbone, options=options, source=source)
    return load_factory(record.factory)(binding)


@pytest.fixture(scope="module")
def objectives():
    backbone = tiny_backbone()
    source = tiny_source(tiny_task(), backbone)
    return [
        BoundObjective(name, source, *(made(p, source, backbone) for p in name.split("/")[1:]))
        for name in IDS
    ]


def test_proportions_begin_with_berts_and_follow_the_logits(objectives):
    mixed = objectives[0].transform
    assert isinstance(mixed, Mixed)
    assert mixed.weighted({}).proportions == pytest.approx((0.8, 0.1, 0.1))
    learned = mixed.weighted({"mask": -math.log(8), "no-op": 0.0, "delete": 5.0}).proportions
    assert learned == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert mixed.proportions == (0.8, 0.1, 0.1)  # a new transform; this one stays


def test_only_masks_where_nothing_else_has_weight(objectives):
    mixed = objectives[0].transform.weighted({"mask": 50.0})
    packed = mixed.apply(tiny_packed(objectives[0].source), torch.Generator().manual_seed(0))
    assert (packed.inputs["input_ids"][packed.selected] == mixed.mask_id).all()


def test_a_step_is_built_with_the_weights_that_it_was_planned_with(objectives):
    factors = Factors.of(IDS)
    planner = Planner(RunConfig(), 0, objectives, factors, None, None)
    state = WeightState.initial(factors)
    logits = state.stages["transform"].clone()
    logits[factors.names["transform"].index("mask")] = 50.0
    learned = attrs.evolve(state, stages={**state.stages, "transform": logits})
    for weights, share in ((state, 0.8), (learned, 1.0)):
        plan = planner.plan(0, weights, "auxiliary")
        assert plan.transform_logits["mask"] == weights.stage_logits(factors, "transform")["mask"]
        _, batch = planner.batch(plan, Processes())
        place = plan.numbers.index(1) if 1 in plan.numbers else None
        if place is None:
            continue
        segment = batch.segments[place]
        ids = batch.inputs["input_ids"][segment.start : segment.stop]
        masked = (
            (ids[batch.targets[place].index] == objectives[0].transform.mask_id).double().mean()
        )
        assert float(masked) == pytest.approx(share, abs=0.25 if share < 1 else 1e-9)
    assert plan.step == 0


def test_preparing_alone_keeps_the_beginning(objectives):
    piece = prepare(objectives[0], 64, torch.Generator().manual_seed(0))
    masked = (
        piece.packed.inputs["input_ids"][piece.packed.selected] == objectives[0].transform.mask_id
    )
    assert 0.65 < float(masked.double().mean()) < 0.95
