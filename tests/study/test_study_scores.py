"""The studies' scripts: scores collected from sweeps, gains from scores, and pages that say what their files say."""

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from _runs import IDS, write_sweep
from scipy import stats

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCORES = DOCS / "experiments" / "scores"


@pytest.fixture(scope="module")
def script():
    """Scripts of the folder by name; each finds those beside it, as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCORES))
        yield importlib.import_module


def test_the_tables_of_rules_on_the_page_are_those_of_the_file(script):
    page = (DOCS / "weighting.md").read_text("utf-8")
    rules = script("weighting_rules")
    spaces = rules.spaces(SCORES / "weighting-rules.csv")
    assert spaces.keys() == {"td", "few-labels", "few-labels, from a probe"}
    for runs in spaces.values():
        assert "\n".join(rules.table(runs, "test")) in page


def test_the_agreement_between_seeds_on_the_page_is_that_of_the_learned_weights(script):
    page = (DOCS / "weighting.md").read_text("utf-8")
    weights, scores = script("weights"), script("scores")
    rows = scores.read(SCORES / "weights-td.csv")
    assert "\n".join(weights.table(rows)) in page
    trained = {
        (r["task"], r["seed"], r["run"]) for r in scores.read(SCORES / "weighting-rules.csv")
    }
    assert {tuple(row[name] for name in weights.APART) for row in rows} <= trained


def test_weights_are_collected_from_a_sweep_where_a_rule_learned_them(tmp_path, script):
    runs = {"equal": {0: 20, 1: 22}, "ours": {0: 28, 1: 30}}
    sweep = write_sweep(tmp_path / "sweep", runs, method="aang")
    weights = script("weights")
    rows = list(weights.learned([sweep]))
    assert [(row["task"], row["seed"], row["run"]) for row in rows] == [
        ("trec", "0", "ours"),
        ("trec", "1", "ours"),
    ]
    assert weights.by_task(rows)["ours"]["trec"][0] == dict(
        zip(IDS, (0.4, 0.1, 0.3, 0.2), strict=True)
    )


def test_the_tables_of_few_labels_on_the_page_are_those_of_the_file(script):
    page = (DOCS / "results.md").read_text("utf-8")
    few, scores = script("few_labels"), script("scores")
    runs = scores.by_run(scores.read(SCORES / "few-labels.csv"))
    for labels in few.TABLES:
        assert "\n".join(few.table(runs, labels)) in page
    assert "\n".join(few.oracle_table(runs)) in page
    assert "\n".join(few.start_table(runs)) in page


def test_the_baseline_is_the_form_that_dev_prefers_on_each_task(script):
    """Whatever test says, and over the seeds that both forms have."""

    def rows(run, scores):
        return [
            {
                "run": run,
                "task": task,
                "seed": str(seed),
                "dev_accuracy": dev,
                "test_accuracy": test,
            }
            for task, seed, dev, test in scores
        ]

    fresh = rows("fresh", [("trec", 0, 0.8, 0.1), ("trec", 1, 0.0, 0.9), ("sst2", 0, 0.5, 0.9)])
    probe = rows("probe", [("trec", 0, 0.7, 0.9), ("sst2", 0, 0.6, 0.1)])
    runs = script("scores").by_run([*fresh, *probe])
    found, chosen = script("few_labels").better(runs, ["fresh", "probe"])
    assert chosen == {"trec": "fresh", "sst2": "probe"}
    assert {key: row["test_accuracy"] for key, row in found.items()} == {
        ("trec", 0): 0.1,
        ("sst2", 0): 0.1,
    }


def test_with_one_task_the_interval_is_that_of_a_paired_t_test(script):
    gains = [0.4, -1.1, 2.0, 0.3]
    mean, half = script("scores").mean_and_interval({"trec": gains})
    expected = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((expected.low, expected.high))


def test_tasks_count_alike_however_many_seeds_they_have(script):
    """Its variance by hand: s² of the seeds within tasks, over three seeds and one."""
    mean, half = script("scores").mean_and_interval({"trec": [1.0, 2.0, 3.0], "sst2": [-4.0]})
    assert mean == pytest.approx((2.0 - 4.0) / 2)
    error = (1.0 * (1 / 3 + 1)) ** 0.5 / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 2) * error)


def test_differences_pair_by_task_and_seed(script):
    def row(task, accuracy, f1):
        return {"task": task, "test_accuracy": str(accuracy), "test_f1": str(f1)}

    own = {
        ("trec", 0): row("trec", 0.8, 0.1),
        ("trec", 1): row("trec", 0.9, 0.1),
        ("acl-arc", 0): row("acl-arc", 0.9, 0.3),
    }
    other = {
        ("trec", 1): row("trec", 0.85, 0.9),
        ("acl-arc", 0): row("acl-arc", 0.1, 0.25),
        ("sst2", 0): row("sst2", 0.5, 0.5),
    }
    found = script("scores").differences(own, other)
    assert list(found) == ["trec", "acl-arc"]
    assert found["trec"] == pytest.approx([5.0])
    assert found["acl-arc"] == pytest.approx([5.0])  # macro-F1, in which it is judged


def test_a_sweep_is_collected_once(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"plain": {0: 20, 1: 22}, "ours": {0: 28}})
    file = tmp_path / "scores.csv"
    command = [sys.executable, SCORES / "scores.py", file, sweep, "--set", "space=td"]
    for new in (3, 0):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"3 rows, {new} of them new" in done.stdout
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["space"], row["task"], row["seed"], row["run"]) for row in rows] == [
        ("td", "trec", "0", "ours"),
        ("td", "trec", "0", "plain"),
        ("td", "trec", "1", "plain"),
    ]
    assert [float(row["test_accuracy"]) for row in rows] == [28 / 40, 20 / 40, 22 / 40]


def test_what_setfit_printed_is_collected_beside_sweeps(tmp_path, script):
    scores = script("scores")
    sweep = write_sweep(tmp_path / "sweep", {"ours": {0: 28}})
    printed = tmp_path / "setfit.out"
    line = {"task": "trec", "seed": 0, "dev": None, "test": {"accuracy": 0.9, "f1": 0.75}}
    progress = "{'embedding_loss': '0.1', 'epoch': '1'}"
    printed.write_text(
        f"{progress}\n{json.dumps({**line, 'tokens': 1000, 'cpu_seconds': 12.34})}\n"
    )
    command = [sys.executable, SCORES / "scores.py", tmp_path / "scores.csv", sweep, printed]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = scores.by_run(scores.read(tmp_path / "scores.csv"))
    assert set(runs) == {"ours", scores.SETFIT}
    row = runs[scores.SETFIT]["trec", 0]
    assert (scores.score(row), row["tokens"], row["cpu_seconds"]) == (90.0, "1000", "12.3")
    assert row["dev_accuracy"] == row["best_step"] == ""


def test_a_training_of_setfit_that_has_not_ended_is_refused(tmp_path, script):
    printed = tmp_path / "setfit.out"
    printed.write_text("{'embedding_loss': '0.1', 'epoch': '0.5'}\n")
    with pytest.raises(SystemExit, match=r"setfit\.out holds no scores"):
        script("scores").of_setfit(printed)
