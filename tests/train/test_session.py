"""A session without a command around it: what its method settles, and that its steps can be repeated."""

import resource
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import attrs
import pytest
import torch
from _steps import MIXED, bind
from torch import nn

from aang_core.config.settings import RunConfig
from aang_core.errors import RunError
from aang_core.method.gradient import dev_gradient
from aang_core.method.weights.chosen import chosen_weighting
from aang_core.processes import Processes
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task
from aang_core.train import step
from aang_core.train.callbacks import Progress
from aang_core.train.checkpoint import restore, snapshot
from aang_core.train.head_fitting import fit_heads
from aang_core.train.session import build_session, forget_peak
from aang_core.train.step import Preparation, train_step


def session_of(method, ids=MIXED, **training):
    task, backbone = tiny_task(), tiny_backbone(torch.float64)
    config = RunConfig.from_mapping(
        {
            "method": method,
            "training": {"end_task_rows": 4, "auxiliary_rows": 13, **training},
            "meta": {"dev_rows": 4, "rule": "auto" if method == "tartan" else "aang"},
        }
    )
    rule = chosen_weighting(config, load_registry())
    return build_session(config, 0, task, backbone, bind(task, backbone, ids), Processes(), rule)


def test_tartan_learns_a_weight_for_each_objective_and_no_factors():
    moved = {}
    for method in ("aang", "tartan"):
        session = session_of(method)
        preparation = Preparation(session, "joint", 3)
        train_step(session, preparation, 0, 1)
        preparation.close()
        assert float(session.weights.objectives.abs().max()) > 0
        moved[method] = any(bool(logits.any()) for logits in session.weights.stages.values())
    assert moved == {"aang": True, "tartan": False}


def test_training_by_rows_is_training_with_dense_gradients(monkeypatch):
    """Clipping, moments, the dev gradient and its alignments; no objective here decodes with the tied matrix."""
    found = {}
    for kind in ("by rows", "dense"):
        if kind == "dense":
            for module in (step, dev_gradient):
                monkeypatch.setattr(module, "by_rows", lambda body: nullcontext())
        session = session_of("aang", ids=(MIXED[1], MIXED[4]), clip=0.1)
        preparation = Preparation(session, "joint", 4)
        records = [train_step(session, preparation, number, 4) for number in range(4)]
        preparation.close()
        table = session.model.backbone.body.words.weight
        found[kind] = [session.dev_gradient["words.weight"].is_sparse]
        found[kind] += [{name: p.detach() for name, p in session.parameters.items()}]
        found[kind] += [[record.alignments for record in records]]
        found[kind] += [session.optimizer.rows(table)]
    assert found["by rows"][0]
    assert not found["dense"][0]
    torch.testing.assert_close(found["by rows"][1:], found["dense"][1:], rtol=1e-9, atol=1e-12)


def test_a_checkpoint_from_when_weights_learned_by_default_does_not_go_on_with_weights_that_rest(
    tmp_path,
):
    (tmp_path / "history.jsonl").touch()
    session = session_of("aang")
    session.config = attrs.evolve(
        session.config, meta=attrs.evolve(session.config.meta, rule="auto")
    )
    saved = snapshot(session, Progress(), tmp_path / "history.jsonl", {}, {})
    assert restore(session, saved) == Progress()
    older = attrs.evolve(saved, facts={k: v for k, v in saved.facts.items() if k != "rule"})
    with pytest.raises(RunError, match='write rule = "aang" under'):
        restore(session, older)
    session.config = attrs.evolve(
        session.config, meta=attrs.evolve(session.config.meta, rule="aang")
    )
    assert restore(session, older) == Progress()


def test_fitting_heads_draws_nothing_from_global_randomness():
    fitted = []
    for seed in (1, 2):
        session = session_of("static")
        head = session.end_task_head  # the auxiliary end-task objective shares it
        head.classify = nn.Sequential(nn.Dropout(0.5), head.classify)
        torch.manual_seed(seed)
        fit_heads(session, 2)
        fitted.append([parameter.detach().clone() for parameter in head.parameters()])
    assert all(map(torch.equal, *fitted))


@pytest.mark.parametrize(("platform", "said"), [("linux", 300 * 1024), ("darwin", 300 * 2**20)])
def test_the_peak_of_memory_is_in_mib_whatever_the_system_counts_in(platform, said, monkeypatch):
    session = session_of("finetune")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=said))
    assert session.peak_memory_mib == 300


def test_each_seed_counts_the_peak_on_the_device_anew(monkeypatch):
    reset = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: reset.append(True))
    forget_peak()
    assert len(reset) == int(torch.cuda.is_initialized())  # no device is waked up for this
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    forget_peak()
    assert reset
