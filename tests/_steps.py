"""A step of a real run in miniature: an encoder, several objectives, one fused batch and a dev gradient."""

from __future__ import annotations

import attrs
import torch

from aang_core.batch.packing import BoundObjective, Piece, fuse, pack, prepare
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin
from aang_core.batch.stream import FULL, FusedBatch
from aang_core.config.settings import Meta
from aang_core.method.end_task import EndTask
from aang_core.method.gradient.dev_gradient import DevGradient
from aang_core.method.gradient.metagrad import Model
from aang_core.method.heads import ObjectiveHeads
from aang_core.registry.options import settings_of
from aang_core.registry.records import load_factory
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

MIXED = (
    "task/bert-op/bidirectional/denoise",
    "task/mask/random-factorized/end-task",
    "task/replace/left-to-right/next-token",
    "task/no-op/permuted/next-token",
    "task/replace/bidirectional/real-synthetic",
    "task/span-mask/right-to-left/span-boundary",
)


@attrs.frozen(eq=False)
class Step:
    model: Model
    batch: FusedBatch
    coefficients: torch.Tensor
    dev_gradient: dict[str, torch.Tensor]

    def gradients(self) -> dict[str, torch.Tensor]:
        """Every ``.grad``, and none is left."""
        found = {}
        for prefix, module in (("body", self.model.backbone.body), ("heads", self.model.heads)):
            for name, parameter in module.named_parameters():
                if parameter.grad is not None:
                    found[f"{prefix}.{name}"] = parameter.grad.clone()
                    parameter.grad = None
        return found


def bind(task, backbone, ids=MIXED, **options):
    """Objectives by id, with their primitives at work."""
    registry, made = load_registry(), {}

    def primitive(name, source=None):
        if (name, source) not in made:
            record = registry.primitive(name)
            settings = settings_of(record, {}) | options.get(name.replace("-", "_"), {})
            binding = Binding(task=task, backbone=backbone, options=settings, source=source)
            made[name, source] = load_factory(record.factory)(binding)
        return made[name, source]

    objectives = []
    for objective in ids:
        data, *others = objective.split("/")
        source = primitive(data)
        objectives.append(
            BoundObjective(objective, source, *(primitive(n, source) for n in others))
        )
    return objectives


def make_step(
    rows=(4, 3, 2, 1, 2, 3, 2),
    coefficients=None,
    ids=MIXED,
    policy="per-objective",
    backbone=None,
    seed=0,
    dtype=torch.float64,
    alignment_layers="all",
    **options,
):
    """One step: `rows` of the end-task, then of each objective of `ids`."""
    backbone = backbone or tiny_backbone(dtype)
    task = tiny_task(seed=seed)
    examples = list(task.splits["train"])
    labelled = backbone.rows(examples, [Origin("train", i, 0) for i in range(len(examples))])
    end_task = EndTask(Binding(task=task, backbone=backbone, options={}))
    objectives = bind(task, backbone, ids, **options)
    heads = ObjectiveHeads(end_task, objectives, policy).to(dtype)
    model = Model(backbone, heads, alignment_layers)
    generator = torch.Generator().manual_seed(seed)
    packed = pack(labelled[: rows[0]])
    pieces = [(0, Piece(packed, (FULL,) * rows[0], end_task.targets(packed)))]
    for k, (objective, count) in enumerate(zip(objectives, rows[1:], strict=True)):
        if count:
            pieces.append((1 + k, prepare(objective, count, generator)))
    meta = Meta(dev_rows=4, dev_head_rows=6)
    dev = DevGradient(model, end_task, labelled[:8], labelled[8:], meta, seed)
    if coefficients is None:
        coefficients = torch.rand(len(pieces), generator=generator, dtype=torch.float64)
    backbone.body.eval()
    model.heads.eval()
    return Step(
        model, fuse(pieces), torch.as_tensor(coefficients, dtype=torch.float64), dev.at(0, None)
    )
