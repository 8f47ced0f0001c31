"""Scores against definitions written out by hand, and their degenerate cases."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aang_core.data.metrics import IGNORED, confusion_of, score
from aang_core.errors import TaskError


def slow_macro_f1(predicted, expected, classes):
    """The mean over all classes of 2·tp / (2·tp + fp + fn), 0 where that is 0/0."""
    values = []
    for c in range(classes):
        pairs = list(zip(predicted, expected, strict=True))
        tp = sum(p == c and e == c for p, e in pairs)
        wrong = sum((p == c) != (e == c) for p, e in pairs)
        values.append(2 * tp / (2 * tp + wrong) if tp + wrong else 0.0)
    return sum(values) / classes


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


@given(pairs=pairs)
def test_class_scores_equal_their_definitions(pairs):
    predicted, expected = zip(*pairs, strict=True)
    found = score("class", predicted, expected, classes=4)
    accuracy = sum(p == e for p, e in pairs) / len(pairs)
    assert found == pytest.approx(
        {"accuracy": accuracy, "f1": slow_macro_f1(predicted, expected, 4)}, abs=1e-12
    )


@given(pairs=pairs)
def test_logits_and_their_argmax_score_alike(pairs):
    predicted, expected = zip(*pairs, strict=True)
    logits = np.eye(4)[list(predicted)] * 3 - 1
    assert score("class", logits, expected) == score("class", predicted, expected, classes=4)


def test_macro_f1_counts_the_classes_that_do_not_occur():
    assert score("class", [0, 1], [0, 1], classes=4)["f1"] == 0.5
    assert score("class", [0, 1], [0, 1])["f1"] == 1.0


def test_ignored_positions_count_nowhere():
    labels = np.array([[0, IGNORED, 1], [1, 1, IGNORED]])
    right = np.array([[0, 9, 1], [1, 1, 7]])
    assert score("token", right, labels, classes=2) == {"accuracy": 1.0, "f1": 1.0}
    logits = np.zeros((2, 3, 2))  # class 0 everywhere
    assert score("token", logits, labels)["accuracy"] == 0.25
    with pytest.raises(TaskError, match="no position has a label"):
        score("token", right, np.full((2, 3), IGNORED))


def test_multilabel_accuracy_wants_every_label_right():
    labels = np.array([[1, 0, 1], [0, 1, 0]])
    logits = np.array([[2.0, -1.0, 0.5], [0.1, 3.0, -2.0]])
    found = score("multilabel", logits, labels)
    assert found["accuracy"] == 0.5
    assert found["f1"] == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_regression_equals_the_closed_forms():
    x = np.array([0.1, 0.4, 0.35, 2.0])
    y = np.array([1.0, 2.0, 3.0, 4.0])
    found = score("regression", x[:, None], y)
    dx, dy = x - x.mean(), y - y.mean()
    assert found["pearson"] == pytest.approx((dx @ dy) / np.sqrt((dx @ dx) * (dy @ dy)), abs=1e-12)
    # ranks of x: 1, 3, 2, 4; Σd² = 2; 1 − 6·2 / (4·15)
    assert found["spearman"] == pytest.approx(0.8, abs=1e-12)
    assert found["mse"] == pytest.approx(np.mean((x - y) ** 2), abs=1e-12)


@pytest.mark.parametrize(("x", "y"), [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0])])
def test_correlation_with_a_constant_is_zero(x, y):
    found = score("regression", x, y)
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)


def test_confusion_has_a_row_for_each_label():
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("c", "c")]
    found = confusion_of([{"gold": gold, "label": said} for gold, said in pairs], "abcd")
    assert found.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("kind", "predicted", "expected", "says"),
    [
        ("ranking", [1], [1], "the kinds are class, multilabel, regression, token"),
        ("class", [], [], "nothing to score"),
        ("class", [1, 2], [1], "2 predictions cannot be scored against 1 labels"),
        ("multilabel", [[1, 2]], [[1]], r"\(1, 2\) do not fit labels \(1, 1\)"),
        ("regression", [[1, 2]], [1], r"\(1, 2\) do not fit labels \(1,\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(kind, predicted, expected, says):
    with pytest.raises(TaskError, match=says):
        score(kind, predicted, expected)


def test_scoring_needs_no_torch_and_means_the_same_by_an_ignored_label_as_rows_do():
    code = "import sys, aang_core.data.metrics; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    from aang_core.batch import rows

    assert rows.IGNORED is IGNORED
