"""The study of weighting rules: its page says what the scores in its file say."""

import importlib.util
from pathlib import Path

import pytest
from scipy import stats

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPT = DOCS / "experiments" / "weighting_rules.py"


@pytest.fixture(scope="module")
def rules():
    spec = importlib.util.spec_from_file_location("weighting_rules", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_on_the_page_are_those_of_the_file(rules):
    page = (DOCS / "weighting.md").read_text("utf-8")
    spaces = rules.read(SCRIPT.with_name("weighting-rules.csv"))
    assert spaces.keys() == {"td", "few-labels"}
    for scores in spaces.values():
        assert "\n".join(rules.table(scores, "test")) in page


def test_with_one_task_the_interval_is_that_of_a_paired_t_test(rules):
    gains = [0.4, -1.1, 2.0, 0.3]
    mean, half = rules.mean_and_interval({"trec": gains})
    expected = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((expected.low, expected.high))


def test_tasks_count_alike_however_many_seeds_they_have(rules):
    """Its variance by hand: s² of the seeds within tasks, over three seeds and one."""
    mean, half = rules.mean_and_interval({"trec": [1.0, 2.0, 3.0], "sst2": [-4.0]})
    assert mean == pytest.approx((2.0 - 4.0) / 2)
    error = (1.0 * (1 / 3 + 1)) ** 0.5 / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 2) * error)
