"""Every legal objective trains, of every layout: finite losses, gradients in the encoder, progress."""

import copy

import attrs
import pytest
import torch

from aang_core.batch.packing import BoundObjective, fuse, prepare
from aang_core.batch.protocols import Binding
from aang_core.data.auxiliary import with_sources
from aang_core.registry.legality import Legal, enumerate_objectives
from aang_core.registry.options import settings_of
from aang_core.registry.records import Block, Space, load_factory
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

REGISTRY = load_registry()
STEPS = 3


PAIRED = {"in-domain": ("bidirectional", "random-factorized"), "aux:further": ("bidirectional",)}
"""Further data sources, with the representations that they are tried under; one transform is enough for them."""


def objectives_of(registry):
    names = {stage: REGISTRY.at_stage(stage) for stage in ("transform", "representation", "output")}
    layouts = [
        *("nsp", "adjacent-sentence", "sentence-order", "sentence-continuation"),
        *("quick-thoughts", "first-sentence", "supervised"),
    ]
    blocks = [Block(data=("task",), **names)]
    for source, representations in PAIRED.items():
        blocks.append(
            Block(
                data=(source,),
                transform=("no-op", "bert-op", "delete"),
                representation=representations,
                output=layouts,
            )
        )
    blocks.append(
        Block(
            data=("neural-lm",),
            transform=("replace",),
            representation=("bidirectional",),
            output=("real-synthetic", "contrastive"),
        )
    )
    ordered = frozenset({"data:document-order", "data:documents", "data:sentences"})
    verdicts = enumerate_objectives(
        Space(name="all", summary="", blocks=blocks),
        registry,
        provided={
            "task": frozenset({"data:tags"}),
            "in-domain": ordered,
            "aux:further": frozenset(),
            "neural-lm": frozenset(),
        },
        backbone_capabilities=tiny_backbone(dropout=0.1).capabilities,
    )
    return [verdict.objective for verdict in verdicts if isinstance(verdict, Legal)]


FURTHER = {"further": attrs.evolve(tiny_task("regression", seed=5), name="further")}
WITH_AUX = with_sources(REGISTRY, FURTHER)
OBJECTIVES = objectives_of(WITH_AUX)


@pytest.fixture(scope="module")
def bound(tmp_path_factory):
    """One encoder, and every primitive bound to it once."""
    folder = tmp_path_factory.mktemp("corpus")
    blocks = ("\n".join(f"{d} {d + 1} {i} {i + 3}" for i in range(4)) for d in range(30))
    (folder / "corpus.txt").write_text("\n\n".join(blocks), encoding="utf-8")
    task, backbone = tiny_task(tags=True), tiny_backbone(torch.float64, dropout=0.1)
    backbone.body.eval()  # losses of one batch can be compared
    external = {"in-domain": folder / "corpus.txt"}
    task = attrs.evolve(task, external=external, auxiliary=FURTHER)
    made = {}

    def bind(name, source=None):
        if (name, source) not in made:
            record = WITH_AUX.primitive(name)
            options = settings_of(record, {"neural-lm": {"fit_steps": 5}}) | dict(
                record.trial_options
            )
            binding = Binding(
                task=task, backbone=backbone, options=options, source=source, cache=folder
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
