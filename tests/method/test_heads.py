"""Objectives that share a head: each is scored by its own output's losses."""

import attrs
import pytest
import torch
from _steps import bind

from aang_core.batch.packing import fuse, prepare
from aang_core.batch.protocols import Binding
from aang_core.method.end_task import EndTask
from aang_core.method.heads import ObjectiveHeads
from aang_core.randomness import generator
from aang_core.testing import tiny_backbone, tiny_task

END_TASK = "task/no-op/bidirectional/end-task"


class Halved(EndTask):
    """Half the squared margin, on the end-task's own head; reads a weight for each row."""

    head_name = "end-task"

    def targets(self, packed):
        targets = super().targets(packed)
        weight = torch.linspace(0.5, 1.5, len(targets), dtype=torch.float64)
        return attrs.evolve(targets, extra={"weight": weight})

    def losses(self, head, hidden, targets):
        logits = head(hidden, targets.index)
        return 0.5 * targets.extra["weight"] * logits.square().sum(-1)


def losses_of(outputs, ids):
    """The losses of the end-task's output and others in one call, and those of each alone."""
    backbone, task = tiny_backbone(torch.float64), tiny_task()
    binding = Binding(task=task, backbone=backbone, options={})
    objectives = [
        attrs.evolve(objective, output=make(binding)) if make else objective
        for objective, make in zip(bind(task, backbone, ids), outputs, strict=True)
    ]
    end_task = EndTask(binding)
    heads = ObjectiveHeads(end_task, objectives, "per-output").double().eval()
    batch = fuse(
        [(k + 1, prepare(each, 3, generator(k, "rows"))) for k, each in enumerate(objectives)]
    )
    hidden = backbone.encode(batch)
    together = heads.losses(hidden, batch)
    alone = []
    for i, segment in enumerate(batch.segments):
        output, targets = heads.outputs[segment.objective], batch.targets[i]
        start = segment.row_start if targets.level == "row" else segment.start
        values = output.losses(heads.head(segment.objective), hidden, targets.shifted(start))
        alone.append(values.mean())
    return together, torch.stack(alone), heads


@pytest.mark.parametrize("order", [(None, Halved), (Halved, None)])
def test_two_outputs_on_one_head_train_by_their_own_losses(order):
    ids = [END_TASK, "task/mask/bidirectional/end-task"]
    together, alone, heads = losses_of(order, ids)
    assert heads.head(1) is heads.head(2)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_class_weights_of_another_corpus_are_not_shared():
    class Weighted(EndTask):
        scale = 1.0

        def __init__(self, binding):
            super().__init__(binding)
            type(self).scale += 1.0
            self.class_weights = torch.full((len(self.names),), type(self).scale)
            self.class_weights[0] = 0.5

    ids = [END_TASK, "task/mask/bidirectional/end-task"]
    together, alone, heads = losses_of((Weighted, Weighted), ids)
    assert len(set(heads.kinds)) == 3
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_the_same_output_of_several_objectives_is_still_one_call():
    calls = []

    class Counted(EndTask):
        def losses(self, head, hidden, targets):
            calls.append(len(targets))
            return super().losses(head, hidden, targets)

    ids = [END_TASK, "task/mask/bidirectional/end-task"]
    _, _, heads = losses_of((Counted, Counted), ids)
    assert heads.kinds == [0, 1, 1]
    assert calls[0] == 6
