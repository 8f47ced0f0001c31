"""Comparisons of hand-made runs against the numbers that scipy and arithmetic give; refusals by their message."""

import csv
import json
import math
import statistics

import numpy as np
import pytest
from _runs import GOLD, answers, write_run
from aang_cli.main import main
from click.testing import CliRunner
from scipy.stats import norm, ttest_rel
from sklearn.metrics import f1_score

from aang_core.analysis.compare import compare_runs
from aang_core.analysis.detectability import answers_in, chance_of, error_of_gain
from aang_core.analysis.statistics import Chance, smallest_detectable_difference
from aang_core.errors import RunError
from aang_core.rundir.finished import read_run, read_runs

PLAIN = {0: 20, 1: 24, 2: 22}
BETTER = {0: 28, 1: 27, 2: 30}


@pytest.fixture
def runs(tmp_path):
    plain = write_run(tmp_path / "plain", PLAIN, method="finetune", tokens=20_000)
    return plain, write_run(tmp_path / "aang", BETTER)


def compared(*paths):
    return compare_runs(read_runs(paths))


def test_rows_are_the_contract_and_the_statistics_are_scipys(runs):
    first, second = compared(*runs).rows
    a, b = ([n / 40 for n in right.values()] for right in (PLAIN, BETTER))
    assert second["values"] == {"0": 28 / 40, "1": 27 / 40, "2": 30 / 40}
    assert second["mean"] == pytest.approx(statistics.fmean(b))
    assert second["std"] == pytest.approx(statistics.stdev(b))
    assert second["delta"] == pytest.approx(statistics.fmean(b) - statistics.fmean(a))
    assert second["p_value"] == pytest.approx(ttest_rel(b, a).pvalue)
    low, high = second["interval"]
    assert (low + high) / 2 == pytest.approx(second["delta"])
    assert (first["delta"], first["p_value"], first["interval"]) == (0.0, None, None)
    assert (second["method"], second["space"], second["tokens"]) == ("aang", "td", 30_000)
    assert set(second["metrics"]) == {"accuracy", "f1"}
    assert second["deduplicated"]["mean"] == second["mean"]
    assert json.loads(json.dumps(second, allow_nan=False)) == second


def test_what_could_have_been_seen_counts_seeds_and_texts(runs):
    _, row = compared(*runs).rows
    right = {
        name: np.mean([np.equal(answers(n), GOLD) for n in table.values()], axis=0)
        for name, table in (("plain", PLAIN), ("aang", BETTER))
    }
    gain = right["aang"] - right["plain"]
    error = gain.std(ddof=1) / math.sqrt(40)
    deltas = [(BETTER[s] - PLAIN[s]) / 40 for s in PLAIN]
    found = row["detectable"]
    # by the quantiles, which leave out the far tail
    assert found["texts"] == pytest.approx(norm.ppf([0.975, 0.8]).sum() * error, rel=1e-5)
    assert found["seeds"] == pytest.approx(
        smallest_detectable_difference(statistics.stdev(deltas), 3)
    )
    chance = Chance(seeds=statistics.variance(deltas) / 3, freedom=2, texts=error**2)
    assert found["both"] == pytest.approx(chance.detectable())
    assert found["both"] > max(found["texts"], found["seeds"])
    assert row["interval"] == pytest.approx(chance.interval(row["delta"]))


def test_a_gain_in_macro_f1_is_paired_over_texts(runs):
    """Against resampled texts, scored by scikit-learn; both runs answer the same ones."""
    plain, ours = read_runs(runs)
    found = chance_of(plain, ours, "test", "f1", [0.0] * 3)
    random, gold, gains = np.random.default_rng(2), np.asarray(GOLD), []
    for _ in range(1000):
        picks = random.integers(0, 40, 40)
        scores = [
            np.mean(
                [
                    f1_score(
                        gold[picks],
                        np.asarray(answers(n))[picks],
                        average="macro",
                        labels=[0, 1, 2],
                    )
                    for n in table.values()
                ]
            )
            for table in (PLAIN, BETTER)
        ]
        gains.append(scores[1] - scores[0])
    assert found.error == pytest.approx(np.std(gains), rel=0.08)


def test_differences_that_do_not_vary_claim_no_certainty(tmp_path):
    paths = [write_run(tmp_path / name, {0: 20, 1: 20}) for name in "ab"]
    row = compared(*paths).rows[1]
    assert row["detectable"] == {"seeds": None, "texts": None, "both": None}
    assert row["p_value"] is None


def test_unequal_cost_is_said(runs, tmp_path):
    assert "aang read 1.50 times the tokens of plain" in " ".join(compared(*runs).remarks)
    equal = write_run(tmp_path / "equal", BETTER, tokens=21_000)
    assert not [said for said in compared(runs[0], equal).remarks if "tokens" in said]


def test_without_test_labels_dev_is_compared_and_that_is_said(tmp_path):
    paths = [write_run(tmp_path / n, {0: 9}, labelled=False) for n in "ab"]
    found = compared(*paths)
    assert found.split == "dev"
    assert found.rows[1]["mean"] == 0.5
    assert found.rows[1]["p_value"] is found.rows[1]["interval"] is None
    assert "scores are those of dev" in found.remarks[0]


def test_every_difference_of_the_runs_is_named_at_once(runs, tmp_path):
    other = write_run(
        tmp_path / "other",
        {0: 5, 4: 6},
        changed={"task": "another", "metric": "f1"},
        config={"train_rows": 50},
        audit={"splits": {"train": 9}, "fingerprint": "xyz"},
    )
    with pytest.raises(RunError) as caught:
        compared(runs[0], other)
    message = str(caught.value)
    for part in (
        "task: sample",
        "metric: accuracy",
        "[0, 4] in other",
        "50 in other",
        "xyz",
        "6 faults",
    ):
        assert part in message


def test_unfinished_damaged_and_newer_runs_are_named_together(runs, tmp_path):
    unfinished, damaged = tmp_path / "unfinished", tmp_path / "damaged"
    unfinished.mkdir()
    damaged.mkdir()
    (damaged / "report.json").write_text('{"schema": 1, "seeds": [{"seed": 0}]', "utf-8")
    newer = write_run(tmp_path / "newer", BETTER, changed={"schema": 2})
    lacking = write_run(tmp_path / "lacking", BETTER, changed={"seeds": [{"seed": 0}]})
    with pytest.raises(RunError) as caught:
        compared(runs[0], unfinished, damaged, newer, lacking, tmp_path / "nowhere")
    message = str(caught.value)
    assert "5 faults" in message
    for part in (
        "no finished run",
        "damaged",
        "has the schema 2",
        "`seeds[0].steps` is missing",
        "no run directory",
    ):
        assert part in message


def test_a_run_is_not_compared_with_itself_and_equal_names_are_told_apart(runs, tmp_path):
    with pytest.raises(RunError, match="given twice"):
        compared(runs[0], runs[0])
    twin = write_run(tmp_path / "deeper" / "plain", PLAIN)
    names = [row["run"] for row in compared(runs[0], twin).rows]
    assert names == [str(runs[0]), str(twin)]
    with pytest.raises(RunError, match="at least two runs"):
        compared(runs[0])


def test_the_command_as_json_markdown_table_and_csv(runs, tmp_path):
    paths, file = [str(p) for p in runs], tmp_path / "rows.csv"
    result = CliRunner().invoke(main, ["compare", *paths, "--json", "--csv", str(file)])
    assert result.exit_code == 0, result.output
    assert [row["run"] for row in json.loads(result.stdout)] == ["plain", "aang"]
    assert "1.50 times the tokens" in result.stderr
    with file.open(encoding="utf-8") as lines:
        table = list(csv.DictReader(lines))
    assert [(r["run"], r["metric"]) for r in table] == [
        ("plain", "accuracy"),
        ("plain", "f1"),
        ("aang", "accuracy"),
        ("aang", "f1"),
    ]
    assert float(table[2]["seed_1"]) == 27 / 40
    markdown = CliRunner().invoke(main, ["compare", *paths, "--markdown"]).stdout.splitlines()
    assert markdown[1].count("---") == markdown[0].count("|") - 1
    assert len(markdown) == 6
    shown = CliRunner().invoke(main, ["compare", *paths]).stdout
    assert "0.7083" in shown


def test_a_mendable_error_is_one_message(runs, tmp_path):
    result = CliRunner().invoke(main, ["compare", str(runs[0]), str(tmp_path)])
    assert result.exit_code == 1
    assert "no finished run" in result.stderr


def test_runs_of_single_seeds_are_put_together(runs, tmp_path):
    apart = tmp_path / "apart"
    for seed, right in BETTER.items():
        write_run(apart / f"seed-{seed}", {seed: right})
    whole, joined = compared(*runs).rows[1], compared(runs[0], apart).rows[1]
    assert {**joined, "run": "aang"} == whole
    assert read_run(apart).report["summary"] == read_run(runs[1]).report["summary"]


def test_entries_of_a_later_version_are_let_be(tmp_path):
    """`read_report` accepts them; joining seeds and drawing the page ended in a TypeError."""
    for seed in (0, 1):
        folder = write_run(tmp_path / "apart" / f"seed-{seed}", {seed: 30})
        report = json.loads((folder / "report.json").read_text("utf-8"))
        report["seeds"][0]["of_tomorrow"] = {"a": 1}
        (folder / "report.json").write_text(json.dumps(report), "utf-8")
    assert read_run(tmp_path / "apart").seeds == (0, 1)
    shown = CliRunner().invoke(main, ["report", str(tmp_path / "apart" / "seed-0")])
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(
    ("seed", "config", "message"),
    [
        (0, {}, "holds seed 0 twice"),
        (5, {"train_rows": 9}, r"other settings than seed-one \(seed-two\)"),
    ],
)
def test_runs_that_are_not_one_are_refused(seed, config, message, tmp_path):
    write_run(tmp_path / "apart" / "seed-one", {0: 20})
    write_run(tmp_path / "apart" / "seed-two", {seed: 20}, config=config)
    with pytest.raises(RunError, match=message):
        read_run(tmp_path / "apart")


def test_what_could_have_been_seen_joins_seeds_by_their_texts(tmp_path):
    """With `split_anew` row i is another text in each seed; the same answers in another order tell the same."""
    found = []
    for shift in (0, 7):
        own = {"shift": shift, "config": {"split_anew": (0.2, 0.4)}}
        paths = [
            write_run(tmp_path / f"{name}-{shift}", right, **own)
            for name, right in (("plain", PLAIN), ("aang", BETTER))
        ]
        found.append(compared(*paths).rows[1]["detectable"])
    assert found[1] == pytest.approx(found[0])


def test_the_error_over_texts_counts_each_text_once_however_many_seeds_judge_it():
    """Against the spread of the gain over resampled texts (the bootstrap over clusters), in plain loops."""
    random = np.random.default_rng(0)
    texts = [
        [(f"text {t}", random.random() < 0.3, random.random() < 0.5) for t in own]
        for own in (range(60), range(30, 90), range(60, 120))
    ]

    def rows(which):
        return [
            [{"inputs": {"text": t[0]}, "gold": "a", "label": "ab"[not t[which]]} for t in own]
            for own in texts
        ]

    first, second = ([answers_in(own) for own in rows(which)] for which in (1, 2))
    error = error_of_gain(first, second, "accuracy")
    sums, counts = [0.0] * 120, [0] * 120
    for own in texts:
        for name, before, after in own:
            sums[int(name.split()[1])] += after - before
            counts[int(name.split()[1])] += 1
    means = []
    for _ in range(4000):
        picks = random.integers(0, 120, 120).tolist()
        means.append(sum(sums[p] for p in picks) / sum(counts[p] for p in picks))
    assert error == pytest.approx(np.std(means), rel=0.05)


def test_runs_that_judge_different_texts_in_a_seed_are_refused(tmp_path):
    paths = [write_run(tmp_path / name, PLAIN, shift=shift) for name, shift in (("a", 0), ("b", 7))]
    for folder in paths:
        file = folder / "seed-1" / "predictions.jsonl"
        lines = file.read_text("utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[:-1]), "utf-8")
    with pytest.raises(RunError, match="judge different test examples in the same seed"):
        compared(*paths)
