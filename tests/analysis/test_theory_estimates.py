"""What the stability bound is fed, against gradients that are known."""

import numpy as np
import pytest
from _runs import IDS, history_lines, write_run

from aang_core.analysis.history import END_TASK, history_of
from aang_core.analysis.page.story import read_story
from aang_core.analysis.page.theory_estimates import (
    auxiliary_norms,
    dissimilarities,
    lines,
    setting_of,
    smoothness,
)
from aang_core.analysis.theory import stability_bound
from aang_core.errors import RunError
from aang_core.rundir.finished import read_run


def record(step, weights, norms, cosines):
    """A step with these auxiliary objectives; the end-task's norm and cosine stand last."""
    template = history_lines(0, steps=1)[0]
    ids = IDS[: len(weights)]
    return {
        **template,
        "step": step,
        "weights": dict(zip(ids, weights, strict=True)),
        "losses": dict.fromkeys(ids, 1.0),
        "norms": {**dict(zip(ids, norms, strict=False)), END_TASK: norms[-1]},
        "alignments": {**dict(zip(ids, cosines, strict=False)), END_TASK: cosines[-1]},
    }


def test_dissimilarity_is_exact_where_gradients_share_only_the_dev_gradient():
    """g_e = V + u, g_1 = V + v, with u and v at right angles to V and to each other."""
    v = np.array([1.0, 0.0, 0.0])
    g_e, g_1 = v + np.array([0.0, 2.0, 0.0]), 3 * v + np.array([0.0, 0.0, 1.5])
    norms = [np.linalg.norm(g) for g in (g_1, g_e)]
    cosines = [g @ v / n for g, n in zip((g_1, g_e), norms, strict=True)]
    history = history_of([record(1, [1.0], norms, cosines)])
    assert dissimilarities(history, True)[0] == pytest.approx(np.linalg.norm(g_1 - g_e))
    assert dissimilarities(history, False)[0] == pytest.approx(np.hypot(*norms))


def test_norms_of_orthogonal_gradients_add_in_squares():
    history = history_of([record(1, [0.5, 0.5], [3.0, 4.0, 1.0], [0.0, 0.0, 0.0])])
    assert auxiliary_norms(history)[0] == pytest.approx(2.5)


def test_smoothness_of_gradient_descent_on_a_parabola():
    """f = β x² / 2: the norm falls by β η ‖g‖ in every step."""
    beta, lr, x = 4.0, 1e-3, 1.0
    norms = []
    for _ in range(200):
        norms.append(beta * x)
        x -= lr * beta * x
    assert smoothness(np.array(norms), np.full(200, lr)) == pytest.approx(beta, rel=0.01)
    assert np.isnan(smoothness(np.array([np.nan, np.nan]), np.array([lr, lr])))


def test_the_bound_is_that_of_the_setting_and_every_line_says_how(tmp_path):
    story = read_story(read_run(write_run(tmp_path / "run", {0: 20, 1: 22})))
    setting = setting_of(story)
    assert (setting.steps, setting.end_task_rows, setting.auxiliary_rows) == (60, 100, 960)
    assert setting.step_size == pytest.approx(1e-4 * 60)
    sums = [
        sum((w * line["norms"][id_]) ** 2 for id_, w in line["weights"].items()) ** 0.5
        for seed in (0, 1)
        for line in history_lines(seed)
    ]
    assert setting.lipschitz == pytest.approx(max(2.0, *sums))
    rows = dict(lines(story))
    assert rows["bound"].startswith(f"{stability_bound(setting).value:.3g} ")
    assert set(rows) >= {"λ_e", "N_e", "N_a", "γ", "T", "c", "L", "Δ"}


def test_methods_that_record_no_norms_are_refused(tmp_path):
    story = read_story(read_run(write_run(tmp_path / "plain", {0: 20}, method="finetune")))
    with pytest.raises(RunError, match="recorded no gradient norms"):
        setting_of(story)


def test_labelled_rows_are_those_that_the_seeds_trained_on(tmp_path):
    """The audit may be of other splits, as with `split_anew`; reports of earlier versions have nothing else."""
    anew = {"split_anew": (0.2, 0.2)}

    def rows_of(name, **run):
        return setting_of(read_story(read_run(write_run(tmp_path / name, {0: 20, 1: 22}, **run))))

    assert rows_of("anew", config=anew, train_rows=64).end_task_rows == 64
    assert rows_of("old", train_rows=None).end_task_rows == 100
    assert rows_of("old few", train_rows=None, config={"train_rows": 30}).end_task_rows == 30
    with pytest.raises(RunError, match="split anew for each seed, and its report does not say"):
        rows_of("old anew", train_rows=None, config=anew)
