"""Frozen layers and adapters: what trains, that the engines agree on it, and that an export holds it."""

import pytest
import torch
from _families import PACKED, save_family
from _steps import make_step

from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Origin
from aang_core.errors import ModelError
from aang_core.method.gradient.metagrad import disagreement, fused, looped
from aang_core.testing import tiny_task

FAMILIES = [
    family for family in PACKED if family != "albert"
]  # ALBERT's one layer is not a list of three


def loaded(folder, family, **settings):
    from aang_text.encoder.backbone import load

    place = folder / family
    if not place.exists():
        save_family(place, family)
    return load(str(place), BackboneSettings(dtype="float64", device="cpu", **settings))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [{"frozen_layers": 2}, {"lora_rank": 2}], ids=str)
def test_engines_agree_on_what_trains(family, settings, tmp_path):
    backbone = loaded(tmp_path, family, **settings)
    for name, parameter in backbone.body.named_parameters():
        if "lora_B" in name:  # adapters begin at zero, where half of their gradients vanish
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    step = make_step(backbone=backbone)
    names = set(step.dev_gradient)
    if "lora_rank" in settings:
        assert names
        assert all("lora_" in name for name in names)
    else:
        assert names
        assert not any("embedding" in name or ".0." in name or ".1." in name for name in names)
    slow = looped(step.model, step.batch, step.coefficients, step.dev_gradient)
    step.gradients()
    fast = fused(step.model, step.batch, step.coefficients, step.dev_gradient)
    assert disagreement(fast, slow) < 1e-8


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_merged_into_the_export(family, tmp_path):
    backbone = loaded(tmp_path, family, lora_rank=3)
    for name, parameter in backbone.body.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(1))
    task = tiny_task()
    head = backbone.end_task_head(task)
    examples = list(task.splits["dev"])
    rows = backbone.rows(examples, [Origin("dev", i, 0) for i in range(len(examples))])
    from aang_core.train.evaluation import predict

    ours = torch.stack(predict(backbone, head, task, rows))
    backbone.export(tmp_path / "model", head, task)
    theirs = backbone.exported_logits(tmp_path / "model", examples)
    torch.testing.assert_close(theirs.float(), ours, rtol=1e-4, atol=1e-4)
    plain = loaded(tmp_path, family)
    assert not torch.allclose(torch.stack(predict(plain, head, task, rows)), ours, atol=1e-3)


def test_more_frozen_layers_than_there_are_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"cannot freeze 9 layers: BertModel has 3"):
        loaded(tmp_path, "bert", frozen_layers=9)


def test_recomputing_activations_where_it_cannot_be_done_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="cannot recompute activations"):
        loaded(tmp_path, "albert", checkpointing=True)
