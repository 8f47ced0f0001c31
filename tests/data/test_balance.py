"""What few rows and unbalanced classes mean for a score is said, with numbers out of the rows."""

import json
import math

import numpy as np
import pytest
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.data.audit import advice, audit_task, findings
from aang_core.data.metrics import score, standard_error
from aang_core.data.task import load_task


def load(path):
    return load_task(str(path), reads=("text",), registered={}, external={})


@pytest.fixture
def tickets(tmp_path):
    """247 rows in five classes, as a new user has them."""
    classes = ["billing"] * 160 + ["login"] * 50 + ["refund"] * 20 + ["crash"] * 12 + ["other"] * 5
    lines = [f"ticket number {n} of a customer,{label}" for n, label in enumerate(classes)]
    path = tmp_path / "tickets.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("rows", [10, 37, 400])
def test_the_standard_error_is_that_of_many_drawn_scores(rows):
    random = np.random.default_rng(0)
    right = random.integers(0, 2, (4000, rows))
    drawn = [score("class", row, np.ones(rows, dtype=int))["accuracy"] for row in right[:500]]
    assert np.std(drawn) == pytest.approx(standard_error("class", rows), rel=0.1)
    pairs = random.normal(size=(500, 2, rows))
    drawn = [score("regression", x, y)["pearson"] for x, y in pairs]
    assert np.std(drawn) == pytest.approx(standard_error("regression", rows), rel=0.1)


def test_a_single_file_of_a_few_hundred_rows_says_how_little_its_dev_can_tell(tickets):
    task = load(tickets)
    assert {name: len(part) for name, part in task.splits.items()} == {
        "train": 173,
        "dev": 37,
        "test": 37,
    }
    [remark] = [remark for remark in task.remarks if "train was split by class" in remark]
    assert f"standard error of about {100 * math.sqrt(0.25 / 37):.0f} points" in remark
    assert "about 8 points" in remark
    assert "--split-anew 0.15 0.15" in remark
    assert "--folds 5" in remark


def test_a_regression_says_it_of_its_correlation_and_much_data_says_nothing(tmp_path):
    lines = [json.dumps({"text": f"text {n}", "label": n + 0.5}) for n in range(12_000)]
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(lines[:100]), encoding="utf-8")
    assert "a correlation on 15 rows has a standard error of up to 0.27" in load(path).remarks[-1]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert "standard error" not in load(path).remarks[-1]


def test_the_audit_shows_the_balance_and_says_what_it_means(tickets):
    found = audit_task(load(tickets))
    assert found["standard_error"] == {"dev": 0.0822, "test": 0.0822}
    assert found["labels"]["train"]["other"] == 3
    [said] = advice(found)
    assert "billing has 112 of 173 labels in train (65%), other 3" in said
    assert findings(found) == []
    result = CliRunner().invoke(main, ["audit", str(tickets), "--strict"])
    assert result.exit_code == 0
    assert "the classes are unbalanced" in result.stderr
    assert "64.7%" in result.stdout


def test_classes_with_fewer_than_two_rows_in_train_are_named(tmp_path):
    for split, labels in (("train", "aaaab"), ("dev", "ab")):
        rows = [{"text": f"{split} {n}", "label": label} for n, label in enumerate(labels)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert findings(audit_task(load(tmp_path))) == ["fewer than 2 rows in train: b (1)"]


def test_reports_of_before_this_have_no_such_finding(tickets):
    old = {key: value for key, value in audit_task(load(tickets)).items() if key != "kind"}
    old["labels"] = {"train": {"least": 0.5, "mean": 1.0, "most": 1.5}}
    assert findings(old) == advice(old) == []
