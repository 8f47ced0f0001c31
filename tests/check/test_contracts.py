"""Every registered primitive keeps to the contract of its stage, and broken ones are caught."""

import attrs
import pytest
import torch
from _causal import save_causal
from aang_text.data.sources import TaskTexts

from aang_core.batch.packing import pack
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import SINGLE, Hidden, Layout, Targets
from aang_core.method.end_task import EndTask
from aang_core.registry.records import Output, Representation, Transform
from aang_core.registry.registry import load_registry
from aang_core.testing import check_primitive, tiny_backbone, tiny_binding, tiny_task

ABLE = tiny_backbone(dropout=0.1).capabilities
PRIMITIVES = [
    entry.record
    for entry in load_registry().primitives.values()
    # the others are of another domain, and their plugin checks them on an encoder of its own
    if {need for need in entry.record.requires if need.startswith("backbone:")} <= ABLE
]


@pytest.mark.parametrize("record", PRIMITIVES, ids=lambda r: f"{r.stage}-{r.name}")
def test_primitive_keeps_its_contract(record, tmp_path):
    binding = tiny_binding(record, tmp_path)
    if record.name == "generated":  # which has no model of its own
        model = str(save_causal(tmp_path / "causal"))
        binding = attrs.evolve(binding, options={**record.options, "model": model, "texts": 20})
    check_primitive(record, binding)


class InPlace:
    def __init__(self, binding):
        pass

    def apply(self, packed, generator):
        packed.selected[~packed.special] = True
        return packed


class SelectsSpecial(InPlace):
    def apply(self, packed, generator):
        return attrs.evolve(packed, selected=torch.ones_like(packed.special))


class GlobalNoise(InPlace):
    def apply(self, packed, generator):
        return attrs.evolve(
            packed, selected=~packed.special & (torch.rand(len(packed.special)) < 2)
        )


class Shortened(InPlace):
    def apply(self, packed, generator):
        return attrs.evolve(packed, inputs={n: v[1:] for n, v in packed.inputs.items()})


class Blind:
    tag = "matrix"

    def __init__(self, binding):
        pass

    def allowed(self, length, generator):
        return torch.zeros(length, length, dtype=torch.bool)


class Detached:
    layout, min_rows, row_multiple, pointwise = SINGLE, 1, 1, True

    def __init__(self, binding):
        pass

    def targets(self, packed):
        index = packed.selected.nonzero().squeeze(1)
        return Targets(index, packed.original["input_ids"][index])

    def head(self):
        return torch.nn.Identity()

    def losses(self, head, hidden, targets):
        return hidden.states[targets.index].square().mean()[None].expand(len(targets))

    def state(self):
        return {}


class WrongGradient(Detached):
    def losses(self, head, hidden, targets):
        states = hidden.states[targets.index]
        return (states * states.detach()).sum(-1)  # half of the true gradient


class OutOfStream(Detached):
    def targets(self, packed):
        found = super().targets(packed)
        return attrs.evolve(found, index=found.index + len(packed.special))


@pytest.mark.parametrize(
    ("kind", "broken", "message"),
    [
        (Transform, InPlace, "left as it was"),
        (Transform, SelectsSpecial, "no special position selected"),
        (Transform, GlobalNoise, "global random state of torch"),
        (Transform, Shortened, r"inputs\[input_ids\]"),
        (Representation, Blind, "see itself"),
        (Output, Detached, "its own target"),
        (Output, WrongGradient, "agree with differences"),
        (Output, OutOfStream, "expected indices"),
    ],
)
def test_broken_primitive_is_caught(kind, broken, message, tmp_path):
    record = kind(name="broken", summary="", factory=f"{__name__}:{broken.__name__}")
    with pytest.raises(AssertionError, match=message) as caught:
        check_primitive(record, tiny_binding(record, tmp_path))
    assert f"{kind.stage}:broken" in str(caught.value)


@pytest.mark.parametrize("kind", ["regression", "multilabel", "token"])
def test_end_task_keeps_its_contract_for_every_kind_of_task(kind):
    record = load_registry().primitive("end-task")
    backbone = tiny_backbone(torch.float64)
    task = tiny_task(kind)

    binding = Binding(task=task, backbone=backbone, options=record.options)
    output, source = EndTask(binding), TaskTexts(binding)
    packed = pack(source.draw(Layout(relation="label"), 6, torch.Generator().manual_seed(0)))
    targets = output.targets(packed)
    states = torch.randn(len(packed.special), 32, dtype=torch.float64, requires_grad=True)
    losses = output.losses(output.head(), Hidden(states, packed.offsets), targets)
    assert losses.shape == (len(targets),)
    assert torch.autograd.grad(losses.sum(), states)[0].abs().max() > 0
    if kind == "token":
        assert len(targets) == sum(
            int(r.max()) + 1 for r in torch.tensor_split(packed.marks["word"], packed.offsets[1:-1])
        )
