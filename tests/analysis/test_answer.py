"""What is said after a run: its score with what it is worth, and whether the objectives helped, on hand-made runs."""

import json
import math
import shutil

import numpy as np
import pytest
from _runs import GOLD, answers, write_run
from scipy.stats import binomtest

from aang_core.analysis.answer import helped, score_of
from aang_core.analysis.compare import compare_runs
from aang_core.analysis.page import page
from aang_core.analysis.page.answer import answer_of
from aang_core.analysis.page.page import build_story
from aang_core.analysis.page.story import read_story
from aang_core.errors import RunError
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


def test_a_study_that_could_only_see_more_than_the_whole_scale_says_so(tmp_path):
    found = judged(tmp_path, {0: 10, 1: 30}, {0: 38, 1: 5})
    assert found["detectable"] > 1
    assert found["said"].endswith("; so few seeds and test rows can hardly show any difference")


@pytest.mark.parametrize(
    ("plain", "ours"),
    [({0: 20, 1: 21}, {0: 22, 1: 26}), ({0: 20, 1: 20}, {0: 18, 1: 30}), ({0: 20}, {0: 23})],
)
def test_what_could_have_been_seen_fits_the_interval_beside_it(plain, ours, tmp_path):
    """80 % power at the degrees of freedom of the interval: more than its half width, by the quantiles alone."""
    found = judged(tmp_path, plain, ours)
    low, high = found["interval"]
    ratio = found["detectable"] / ((high - low) / 2)
    # (1.96 + 0.84) / 1.96 = 1.43 of the normal, 1.29 with one degree of freedom; a bootstrap is a little off
    assert 1.25 < ratio < 1.5


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


def test_macro_f1_tells_the_gain_too_where_classes_are_unbalanced(tmp_path):
    """Score, answer, comparison and page name one metric first."""
    audit = {
        "kind": "class",
        **AUDIT,
        "labels": {"train": {"no": 50, "yes": 10, "<b>maybe</b>": 40}},
    }
    first = write_run(tmp_path / "plain", {0: 12, 1: 13}, method="finetune", audit=audit)
    second = write_run(tmp_path / "run", {0: 34, 1: 36}, audit=audit)
    plain, run = read_runs([first, second])
    found = helped(plain, run)
    assert found["metric"] == run.headline == "f1"
    scores = [run.scores("test", "f1")[s] - plain.scores("test", "f1")[s] for s in (0, 1)]
    assert found["delta"] == pytest.approx(np.mean(scores))
    assert "points of f1 on test" in found["said"]
    compared = compare_runs([plain, run])
    assert compared.metric == compared.rows[1]["metric"] == next(iter(compared.rows[1]["metrics"]))
    assert compared.metric == "f1"
    story = build_story(run, [plain])
    assert answer_of(story).meaning == "test f1, over plain"
    assert page._facts(story)[0][1] == "test f1"
    assert page._seeds(run.report, run.headline)[0][3:5] == ["dev f1", "dev accuracy"]


def test_a_baseline_with_objectives_of_its_own_is_no_verdict_on_objectives(tmp_path):
    first = write_run(tmp_path / "static", {0: 12, 1: 13}, method="static")
    second = write_run(tmp_path / "run", {0: 34, 1: 36})
    assert helped(*read_runs([first, second]))["said"].startswith(
        "run is better than static: +56.2"
    )


def test_the_page_reads_the_baseline_and_keeps_the_answer_where_that_is_gone(tmp_path):
    first = write_run(tmp_path / "run-finetune", {0: 12, 1: 13}, method="finetune")
    second = write_run(tmp_path / "run", {0: 34, 1: 36})
    known = {"directory": "run-finetune", "baseline": "finetune"}
    (second / "against.json").write_text(json.dumps(known), "utf-8")
    story, others = page.told(read_run(second))
    assert [other.run.name for other in others] == ["run-finetune"]
    answer_there = answer_of(story)
    assert answer_there.sentence.startswith("The objectives helped: +56.2 points")
    found = helped(*read_runs([first, second]))
    (second / "against.json").write_text(json.dumps({**known, **found}), "utf-8")
    shutil.rmtree(first)
    alone, none = page.told(read_run(second))
    assert (none, answer_of(alone)) == ([], answer_there)
    (second / "against.json").write_text(json.dumps({**known, "directory": "../../etc"}), "utf-8")
    with pytest.raises(RunError, match=r"against\.json is damaged"):
        page.told(read_run(second))
