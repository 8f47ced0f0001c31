"""What a checkpoint brings to a head trains as the encoder does; what is new, at the heads' rate."""

import pytest
import torch
from _families import save_family
from _steps import bind

from aang_core.batch.protocols import BackboneSettings
from aang_core.config.settings import RunConfig
from aang_core.errors import PluginError
from aang_core.processes import Processes
from aang_core.testing import tiny_backbone, tiny_task
from aang_core.train.head_fitting import fit_heads
from aang_core.train.session import build_session

DENOISE = "task/mask/bidirectional/denoise"
NEXT = "task/no-op/left-to-right/next-token"
POOLER = ["pooler.dense.bias", "pooler.dense.weight"]


def session_of(backbone, *ids, **training):
    config = {"training": {"lr": 1e-5, "head_lr": 1e-2, "weight_decay": 0.25, **training}}
    config = RunConfig.from_mapping({"method": "static", **config})
    task = tiny_task()
    return build_session(config, 0, task, backbone, bind(task, backbone, ids), Processes())


def loaded(model):
    from aang_text.encoder.backbone import load

    return load(str(model), BackboneSettings(dtype="float32", device="cpu"))


def rates(session):
    """Name → learning rate and weight decay."""
    of = {
        id(p): (group["base_lr"], group["weight_decay"])
        for group in session.optimizer.param_groups
        for p in group["params"]
    }
    return {name: of[id(p)] for name, p in session.parameters.items()}


def test_a_pretrained_pooler_trains_at_the_encoders_rate_and_decay(tmp_path):
    save_family(tmp_path / "bert", "bert")
    session = session_of(loaded(tmp_path / "bert"))
    found = rates(session)
    pooler = [name for name in found if ".pooler." in name]
    assert [name.split("bert.")[-1] for name in sorted(pooler)] == POOLER
    assert {found[name] for name in pooler} == {(1e-5, 0.25), (1e-5, 0.0)}
    classifier = {found[name] for name in found if "classifier" in name}
    assert {lr for lr, _ in classifier} == {1e-2}
    assert {lr for name, (lr, _) in found.items() if name.startswith("body.")} == {1e-5}
    listed = session.head_parameters
    assert sorted(listed["pretrained"]) == sorted(pooler)
    assert all("classifier" in name for name in listed["new"])
    assert len(listed["new"]) == 2


def test_random_weights_are_all_new():
    listed = session_of(loaded("scratch:tiny"), DENOISE).head_parameters
    assert listed["pretrained"] == []
    assert listed["new"]


@pytest.mark.parametrize("has_head", [True, False])
def test_a_masked_lm_head_is_pretrained_where_the_checkpoint_has_one(has_head, tmp_path):
    from transformers import AutoConfig, AutoModelForMaskedLM

    save_family(tmp_path / "bert", "bert")
    if has_head:
        config = AutoConfig.from_pretrained(tmp_path / "bert")
        AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "bert")
    listed = session_of(loaded(tmp_path / "bert"), DENOISE, NEXT).head_parameters
    old = [name for name in listed["pretrained"] if "pooler" not in name]
    heads = {name.split(".")[2] for name in old}
    assert heads == ({"denoise", "next-token"} if has_head else set())
    assert any(name.endswith("place.weight") for name in listed["new"])  # next-token's own


def test_an_untied_copy_of_pretrained_embeddings_is_pretrained(tmp_path):
    save_family(tmp_path / "bert", "bert")
    head = loaded(tmp_path / "bert").vocabulary_head(tied=False)
    assert head.pretrained_names == {"untied_weight"}
    assert loaded("scratch:tiny").vocabulary_head(tied=False).pretrained_names == set()


def test_fitting_heads_moves_what_is_pretrained_as_slowly_as_the_encoder():
    moved = {}
    for known in (False, True):
        session = session_of(tiny_backbone(torch.float64), DENOISE)
        names = session.head_parameters["new"]
        session.pretrained = frozenset(names) if known else frozenset()
        before = {name: session.parameters[name].detach().clone() for name in names}
        fit_heads(session, 1)
        gaps = [
            (session.parameters[name].detach() - before[name]).abs().max().item() for name in names
        ]
        moved[known] = max(gaps)
    assert moved[True] < moved[False] / 100


def test_a_head_that_calls_foreign_parameters_pretrained_is_refused():
    backbone = tiny_backbone(torch.float64)
    make = backbone.end_task_head

    def spoilt(task):
        head = make(task)
        head.pretrained_names = {"classify.weights"}
        return head

    backbone.end_task_head = spoilt
    with pytest.raises(PluginError, match=r"pretrained_names.*classify\.weights"):
        session_of(backbone)
