"""What is said after a run: its score with what it is worth, and whether the objectives helped, on hand-made runs."""

import math

import numpy as np
import pytest
from _runs import GOLD, answers, write_run
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from aang_core.analysis import answer
from aang_core.analysis.answer import helped, score_of
from aang_core.analysis.page.answer import answer_of
from aang_core.analysis.page.story import read_story
from aang_core.rundir.finished import read_run, read_runs

AUDIT = {"splits": {"test": 40}, "labels": {"train": {"no": 9, "yes": 4, "<b>maybe</b>": 5}}}


def judged(tmp_path, plain, ours):
    first = write_run(tmp_path / "run-finetune", plain, method="finetune", audit=AUDIT)
    second = write_run(tmp_path / "run", ours, audit=AUDIT)
    return helped(*read_runs([first, second]))


def test_one_seed_has_a_standard_error_and_the_majority_beside_it(tmp_path):
    found = score_of(read_run(write_run(tmp_path / "run", {0: 30}, audit=AUDIT)))
    assert found["standard_error"] == pytest.approx(math.sqrt(0.75 * 0.25 / 40))
    assert found["majority"] == {"label": "no", "score": pytest.approx(14 / 40)}
    assert found["said"] == (
        "accuracy on test: 0.7500 ± 0.0685 (standard error, 40 rows); always answering 'no' gives 0.3500"
    )


def test_several_seeds_have_a_mean_and_a_spread(tmp_path):
    found = score_of(read_run(write_run(tmp_path / "run", {0: 30, 1: 34}, audit=AUDIT)))
    assert (
        "0.8000 ± 0.0707 (mean ± std of 2 seeds; standard error of one by its 40 rows: 0."
        in found["said"]
    )


def test_objectives_that_help_clearly(tmp_path):
    found = judged(tmp_path, {0: 12, 1: 13, 2: 12}, {0: 34, 1: 36, 2: 35})
    assert found["verdict"] == "helped"
    low, high = found["interval"]
    assert found["delta"] == pytest.approx(68 / 120)
    assert 0 < low < found["delta"] < high
    sure = f"95 % interval {100 * low:.1f} to {100 * high:.1f}, 3 seeds"
    assert found["said"] == f"The objectives helped: +56.7 points of accuracy on test ({sure})"


def test_objectives_that_hurt_lead_back_to_plain_fine_tuning(tmp_path):
    found = judged(tmp_path, {0: 34, 1: 36}, {0: 12, 1: 13})
    assert found["verdict"] == "hurt"
    assert found["said"].startswith("The objectives hurt: -56.2 points")
    assert str(tmp_path / "run-finetune") in found["next"]


def test_a_difference_within_chance_says_what_could_have_been_seen(tmp_path):
    found = judged(tmp_path, {0: 28, 1: 30, 2: 29}, {0: 29, 1: 30, 2: 31})
    assert found["verdict"] == "unclear"
    low, high = found["interval"]
    assert low < 0 < high
    assert found["said"].startswith("No difference can be seen: +2.5 points of accuracy on test (")
    could = 100 * found["detectable"]
    assert found["said"].endswith(f"; this study could have seen {could:.1f} points")
    assert "more labels" in found["next"]


def test_one_seed_is_judged_by_its_test_rows(tmp_path):
    found = judged(tmp_path, {0: 20}, {0: 32})
    assert found["verdict"] == "helped"
    assert found["p_value"] == pytest.approx(binomtest(12, 12).pvalue)
    gain = np.equal(answers(32), GOLD).astype(float) - np.equal(answers(20), GOLD)
    random = np.random.default_rng(3)
    slow = [gain[random.integers(0, 40, 40)].mean() for _ in range(4000)]
    assert found["interval"] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.03)
    same = judged(tmp_path / "same", {0: 20}, {0: 20})
    assert (same["verdict"], same["p_value"], same["interval"]) == ("unclear", None, None)


def test_equal_seeds_claim_no_certainty(tmp_path):
    found = judged(tmp_path, {0: 20, 1: 20}, {0: 20, 1: 20})
    assert (found["verdict"], found["interval"]) == ("unclear", None)


def test_resampled_macro_f1_is_scikit_learns():
    random = np.random.default_rng(0)
    rows = [tuple(random.choice(["a", "b", "c"], 2)) for _ in range(30)]
    picks = random.integers(0, 30, size=(5, 30))
    found = answer._resampled(rows, ["a", "b", "c"], picks, "f1")
    slow = [
        f1_score(*zip(*(rows[i] for i in draw), strict=True), labels=["a", "b", "c"], average="macro", zero_division=0)
        for draw in picks
    ]  # fmt: skip
    assert found == pytest.approx(slow, abs=1e-12)


def test_macro_f1_comes_first_where_classes_are_unbalanced(tmp_path):
    """Five times as many labels of one class as of another: the audit's bound, and the run's own metric follows."""
    audit = {
        "kind": "class",
        **AUDIT,
        "labels": {"train": {"no": 50, "yes": 10, "<b>maybe</b>": 40}},
    }
    run = read_run(write_run(tmp_path / "run", {0: 30}, audit=audit))
    found = score_of(run)
    assert (found["metric"], run.report["metric"]) == ("f1", "accuracy")
    assert found["said"].startswith(f"f1 on test: {found['mean']:.4f} ± ")
    assert found["said"].endswith(
        "; accuracy 0.7500 (classes are unbalanced: macro-F1 comes first)"
    )
    shown = answer_of(read_story(run))
    assert shown.meaning == "test f1"
    assert "Classes are unbalanced" in shown.sentence
    audit["labels"]["train"]["no"] = 49
    assert (
        score_of(read_run(write_run(tmp_path / "even", {0: 30}, audit=audit)))["metric"]
        == "accuracy"
    )
