"""A probe as the head's last layer: against scikit-learn's own answers, and in whole runs."""

import json

import attrs
import numpy as np
import pytest
import torch
from _steps import bind
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

import aang_core
from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.processes import Processes
from aang_core.testing import tiny_backbone, tiny_task
from aang_core.train.callbacks import Progress
from aang_core.train.evaluation import DevJudge, scores
from aang_core.train.head_fitting import _regressed, features_of, fit_probe, last_layer, temper
from aang_core.train.session import build_session


def session_of(task=None):
    task, backbone = task or tiny_task(), tiny_backbone(torch.float64)
    config = RunConfig.from_mapping({"method": "static", "training": {"end_task_rows": 4}})
    ids = ("task/bert-op/bidirectional/denoise",)
    return build_session(config, 0, task, backbone, bind(task, backbone, ids), Processes())


def test_the_heads_answers_are_the_regressions_own():
    session = session_of()
    rows = session.planner.labelled.rows
    read = fit_probe(session)
    assert read == sum(map(len, rows))
    features = features_of(session, last_layer(session), rows)
    labels = [row.label for row in rows]
    fitted = LogisticRegression(max_iter=1000).fit(features.numpy(), labels)
    own = torch.stack(session.predict(rows)).softmax(-1).double()
    expected = torch.as_tensor(fitted.predict_proba(features.numpy()))
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_features_come_back_in_the_order_of_the_rows():
    session = session_of()
    rows = list(session.planner.labelled.rows)
    layer = last_layer(session)
    together = features_of(session, layer, rows)
    alone = torch.cat([features_of(session, layer, [row]) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("present", [(0, 2), (1,), (0, 1, 2, 3)])
def test_classes_without_rows_are_never_the_answer(present):
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, generator=draw, dtype=torch.float64)
    labels = torch.tensor([present[i % len(present)] for i in range(40)])
    weight, bias = _regressed(features, labels, 4)
    logits = features @ weight.T + bias
    assert set(logits.argmax(-1).tolist()) <= set(present)
    if len(present) > 1:
        fitted = LogisticRegression(max_iter=1000).fit(features.numpy(), labels.numpy())
        expected = torch.as_tensor(fitted.predict_proba(features.numpy()))
        own = logits[:, list(present)].softmax(-1)
        torch.testing.assert_close(own, expected, rtol=1e-6, atol=1e-8)


def clouds(counts, width=20):
    """Features of classes that lie near each other, so many rows of each, and their labels in a mixed order."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=draw)]
    middles = torch.randn(len(counts), width, generator=draw, dtype=torch.float64)
    noise = torch.randn(len(labels), width, generator=draw, dtype=torch.float64)
    return middles[labels] + 4 * noise, labels


@pytest.mark.parametrize("counts", [(30, 20), (20, 15, 12), (10, 7, 1)])
def test_a_tempered_probe_is_as_sure_of_its_rows_as_of_others(counts):
    features, labels = clouds(counts)
    weight, bias = _regressed(features, labels, len(counts))
    logits = features @ weight.T + bias

    def loss(share):
        return float(torch.nn.functional.cross_entropy(share * logits, labels))

    found = temper(features, labels, weight, bias)
    x, y = features.numpy(), labels.numpy()
    fold = np.empty_like(y)
    fold[np.argsort(y, kind="stable")] = np.arange(len(y)) % 5
    unseen = []  # of each row the loss at every share of the probe's logits
    shares = np.linspace(0, 1, 2001)[:, None]
    for number in range(5):
        fitted = LogisticRegression(max_iter=1000, tol=1e-6).fit(
            x[fold != number], y[fold != number]
        )
        for row in np.flatnonzero(fold == number):
            if y[row] in fitted.classes_:
                chances = fitted.predict_log_proba(x[row : row + 1])  # logits, but for a constant
                right = list(fitted.classes_).index(y[row])
                unseen.append(-log_softmax(shares * chances, axis=1)[:, right])
    surprise = np.mean(unseen, 0).min()
    assert loss(1) < surprise < np.log(len(counts)), "neither end of the search"
    assert loss(found) == pytest.approx(surprise, rel=2e-3)


def test_a_probe_stays_as_it_is_where_no_row_can_be_left_out():
    features, labels = clouds((1, 1, 1))
    weight, bias = _regressed(features, labels, 3)
    assert temper(features, labels, weight, bias) == 1


def test_a_tempered_probe_gives_the_same_answers_and_leaves_more_to_learn(tmp_path):
    how = {"model": "scratch:tiny", "method": "finetune", "train_rows": 60}
    training = {"max_steps": 2, "eval_every": 1, "end_task_rows": 8, "final_epochs": 0}
    first = {}
    for start in ("probe", "tempered-probe"):
        out = tmp_path / start
        (seed,) = aang_core.run(heads={"start": start}, training=training, out=out, **how).seeds
        line = json.loads((out / "history.jsonl").read_text("utf-8").splitlines()[0])
        first[start] = seed.evaluations[0]["accuracy"], line["losses"]
    assert first["probe"][0] == first["tempered-probe"][0]
    (sure,), (tempered,) = (list(losses.values()) for _, losses in first.values())
    assert tempered > sure


@pytest.mark.parametrize("resumed", [False, True])
def test_the_last_evaluation_reads_dev_only_where_it_has_to(tmp_path, monkeypatch, resumed):
    """A new last layer reads what the one before read of the best encoder; a resumed run reads it anew."""
    session = session_of()
    heads = attrs.evolve(session.config.heads, finish="probe")
    session.config = attrs.evolve(session.config, heads=heads)
    judge = DevJudge(session, tmp_path / "best.safetensors")
    progress = judge.judged(Progress())
    own = session.predict(session.stopping)
    metrics = scores(session.task, own, session.stopping)
    assert {name: progress.evaluations[0][name] for name in metrics} == metrics
    fit_probe(session)
    logits = session.predict(session.stopping)
    if resumed:
        judge.features = None
    passes, encode = [], session.model.backbone.encode
    backbone = type(session.model.backbone)
    monkeypatch.setattr(backbone, "encode", lambda _, batch: passes.append(batch) or encode(batch))
    progress = judge.probed(progress)
    assert bool(passes) == resumed
    metrics = scores(session.task, logits, session.stopping)
    assert {name: progress.evaluations[1][name] for name in metrics} == metrics
    answers = last_layer(session)(judge.features)
    torch.testing.assert_close(answers, torch.stack(logits).to(answers), rtol=1e-5, atol=1e-6)


def test_a_task_without_classes_is_refused_in_words():
    task = tiny_task("regression")
    session = session_of()
    with pytest.raises(ConfigError, match="a probe needs classes"):
        fit_probe(attrs.evolve(session, task=task))


def test_a_probe_is_kept_in_any_case_where_it_always_is(tmp_path):
    training = {"max_steps": 6, "eval_every": 2, "end_task_rows": 8, "final_epochs": 0, "lr": 1e-3}
    how = {"model": "scratch:tiny", "method": "finetune", "train_rows": 40, "training": training}
    (chosen,) = aang_core.run(heads={"finish": "probe"}, out=tmp_path / "one", **how).seeds
    (kept,) = aang_core.run(heads={"finish": "always"}, out=tmp_path / "two", **how).seeds
    assert kept.evaluations == chosen.evaluations
    *others, last = chosen.evaluations
    best = max(reversed(others), key=lambda each: each["accuracy"])
    assert last["step"] == best["step"], "the probe reads the best encoder"
    assert kept.dev == {name: value for name, value in last.items() if name != "step"}
    assert kept.best_step == best["step"]


def test_a_run_may_start_and_finish_with_a_probe(tmp_path):
    report = aang_core.run(
        model="scratch:tiny",
        method="finetune",
        train_rows=40,
        training={"max_steps": 4, "eval_every": 2, "end_task_rows": 8, "final_epochs": 0},
        heads={"start": "probe", "finish": "probe"},
        out=tmp_path / "run",
    )
    (seed,) = report.seeds
    assert (
        len(seed.evaluations) == 4
    )  # before the first step, two in the loop, one after the last probe
    best = max(e["accuracy"] for e in seed.evaluations)
    assert seed.dev["accuracy"] == best
    plain = aang_core.run(
        model="scratch:tiny",
        method="finetune",
        train_rows=40,
        training={"max_steps": 4, "eval_every": 2, "end_task_rows": 8, "final_epochs": 0},
        out=tmp_path / "plain",
    )
    assert seed.cost["tokens"] > plain.seeds[0].cost["tokens"], "the probes' passes are counted"
