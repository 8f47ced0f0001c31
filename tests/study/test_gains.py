"""Methods over several tasks: hand-made sweeps against plain arithmetic; refusals by their message."""

import csv
import itertools
import json
import re
from statistics import fmean, stdev
from xml.etree import ElementTree as ET

import pytest
from _runs import write_run, write_sweep
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.analysis.compare import compare_runs
from aang_core.analysis.statistics import Chance
from aang_core.errors import RunError
from aang_core.rundir.finished import read_runs
from aang_core.study.sweeps.gains import compare_sweeps

PLAIN = {0: 20, 1: 22, 2: 21}
OURS = {0: 28, 1: 31, 2: 30}
WORSE = {0: 10, 1: 14, 2: 11}


@pytest.fixture
def sweeps(tmp_path):
    first = write_sweep(tmp_path / "a", {"plain": PLAIN, "ours": OURS, "worse": WORSE})
    second = write_sweep(
        tmp_path / "b",
        {"plain": {0: 20, 1: 20, 2: 24}, "ours": {0: 22, 1: 19, 2: 25}, "worse": WORSE},
        task="sst2",
    )
    return [first, second]


def test_each_task_says_what_a_comparison_of_its_runs_says(sweeps):
    found = compare_sweeps(sweeps, ["plain"])
    (row,) = [r for r in found["tasks"] if (r["task"], r["method"]) == ("trec", "ours")]
    alone = compare_runs(
        read_runs([sweeps[0] / "runs" / "plain", sweeps[0] / "runs" / "ours"])
    ).rows[1]
    for name in ("mean", "delta", "interval", "p_value", "detectable", "values"):
        assert row["metrics"]["own"][name] == alone[name]
        assert row["metrics"]["f1"][name] == alone["metrics"]["f1"][name]
    assert row["metrics"]["own"]["baseline"] == pytest.approx(fmean(PLAIN.values()) / 40)
    assert (row["metric"], row["split"], row["seeds"]) == ("accuracy", "test", [0, 1, 2])
    assert (row["tokens"], row["cpu_seconds"], row["baseline_tokens"]) == (30_000, 11.0, 30_000)
    assert row["verdict"] == "win"
    assert "labels (train + dev): trec 100 + 20, sst2 100 + 20" in found["remarks"]
    verdicts = {(r["task"], r["method"]): r["verdict"] for r in found["tasks"]}
    assert verdicts["sst2", "ours"] == "tie"
    assert verdicts["trec", "worse"] == "loss"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_mean_over_tasks_counts_every_task_alike(sweeps):
    found = compare_sweeps(sweeps, ["plain"])
    ours, worse = found["methods"]
    deltas = [[8, 9, 9], [2, -1, 1]]
    figures = ours["metrics"]["own"]
    assert figures["delta"] == pytest.approx(fmean(fmean(d) for d in deltas) / 40)
    observed = sum(sum(d) for d in deltas)
    flips = [
        abs(sum(s * d for s, d in zip(signs, itertools.chain(*deltas), strict=True)))
        for signs in itertools.product((1, -1), repeat=6)
    ]
    p_value = fmean(total >= observed for total in flips)
    assert figures["p_value"] == pytest.approx(p_value)
    both = sorted([p_value, worse["metrics"]["own"]["p_value"]])
    assert {figures["p_holm"], worse["metrics"]["own"]["p_holm"]} == {
        2 * both[0],
        max(2 * both[0], both[1]),
    }
    low, high = figures["interval_seeds"]
    error = (sum(stdev(d) ** 2 / 3 for d in deltas) / 4) ** 0.5 / 40
    assert low < figures["delta"] < high
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    chances = [
        Chance(seeds=own["errors"]["seeds"] ** 2, freedom=2, texts=own["errors"]["texts"] ** 2)
        for row in found["tasks"]
        if row["method"] == "ours"
        for own in [row["metrics"]["own"]]
    ]
    assert figures["interval"] == pytest.approx(Chance.mean_of(chances).interval(figures["delta"]))
    assert figures["detectable"] == pytest.approx(Chance.mean_of(chances).detectable())
    assert figures["interval_tasks"] is None
    assert ours["verdicts"] == {"win": 1, "loss": 0, "tie": 1}
    assert (ours["pairs"], ours["tasks"]) == (6, ["trec", "sst2"])
    assert "fewer than 5 tasks say nothing of other tasks" in " ".join(found["remarks"])
    again = compare_sweeps(sweeps, ["plain"])
    assert again == found


def test_five_tasks_have_an_interval_over_tasks(tmp_path):
    paths = [
        write_sweep(
            tmp_path / str(n),
            {"plain": PLAIN, "ours": {s: r + n for s, r in PLAIN.items()}},
            task=f"task-{n}",
        )
        for n in range(5)
    ]
    (row,) = compare_sweeps(paths, ["plain"])["methods"]
    figures = row["metrics"]["own"]
    assert figures["delta"] == pytest.approx(2 / 40)
    assert figures["interval_seeds"] == pytest.approx([2 / 40, 2 / 40]), "no seed differs"
    low, high = figures["interval_tasks"]
    assert 0 < low < 2 / 40 < high < 4 / 40


def test_of_several_baselines_dev_chooses_for_each_task(tmp_path):
    """Test would choose the other one on both tasks."""
    runs = {"pooler": {0: 20, 1: 20}, "mean": {0: 30, 1: 30}, "ours": {0: 31, 1: 32}}
    paths = [
        write_sweep(tmp_path / "a", runs, task="a", dev={"pooler": 0.7, "mean": 0.6, "ours": 0.1}),
        write_sweep(tmp_path / "b", runs, task="b", dev={"pooler": 0.6, "mean": 0.7, "ours": 0.9}),
    ]
    found = compare_sweeps(paths, ["pooler", "mean"])
    assert {row["task"]: row["baseline"] for row in found["tasks"]} == {"a": "pooler", "b": "mean"}
    assert {row["method"] for row in found["tasks"]} == {"ours"}
    assert found["chosen"]["a"]["dev"] == {"pooler": pytest.approx(0.7), "mean": pytest.approx(0.6)}
    said = " ".join(found["remarks"])
    assert "baseline on a, by dev over 2 seeds (pooler 70.0, mean 60.0): pooler" in said


def test_missing_seeds_are_named_and_pairs_alone_compared(tmp_path):
    runs = {"plain": {0: 20, 1: 22, 2: 21}, "ours": {1: 31, 2: 30, 3: 40}}
    found = compare_sweeps([write_sweep(tmp_path / "a", runs, planned=range(5))], ["plain"])
    (row,) = found["tasks"]
    assert row["seeds"] == [1, 2]
    assert row["metrics"]["own"]["delta"] == pytest.approx(9 / 40)
    assert found["incomplete"] == [
        {"task": "trec", "method": "plain", "missing": [3, 4]},
        {"task": "trec", "method": "ours", "missing": [0, 4]},
    ]
    assert "not finished on trec: plain: seed 3, 4; ours: seed 0, 4" in found["remarks"][0]
    assert found["methods"][0]["metrics"]["own"]["interval_seeds"] is None, "two seeds are too few"


def test_one_seed_is_no_win(tmp_path):
    found = compare_sweeps(
        [write_sweep(tmp_path / "a", {"plain": {0: 10}, "ours": {0: 40}})], ["plain"]
    )
    assert found["tasks"][0]["verdict"] is None
    assert found["tasks"][0]["metrics"]["own"]["interval"][0] > 0
    assert found["methods"][0]["verdicts"] == {"win": 0, "loss": 0, "tie": 0}
    assert found["methods"][0]["metrics"]["own"]["detectable"] is None


def test_sweeps_of_one_task_are_put_together_unless_their_labels_differ(tmp_path):
    runs = {"plain": {0: 20, 1: 22}, "ours": {0: 28, 1: 31}}
    later = {"plain": {2: 20, 3: 22}, "ours": {2: 28, 3: 31}}
    paths = [
        write_sweep(tmp_path / "a", runs),
        write_sweep(tmp_path / "b", later),
        write_sweep(tmp_path / "c", runs, rows=400, dev_rows=10),
    ]
    found = compare_sweeps(paths, ["plain"])
    assert [(row["task"], row["seeds"]) for row in found["tasks"]] == [
        ("trec, 100 labels", [0, 1, 2, 3]),
        ("trec, 400 labels and 10 in dev", [0, 1]),
    ]


def test_a_sweep_that_has_finished_nothing_is_counted_as_missing(tmp_path):
    begun = write_sweep(tmp_path / "a", {"plain": PLAIN, "ours": OURS})
    waiting = write_sweep(tmp_path / "b", {"plain": {}, "ours": {}}, planned=(7,))
    found = compare_sweeps([waiting, begun], ["plain"])
    assert [row["task"] for row in found["tasks"]] == ["trec"]
    assert [row["missing"] for row in found["incomplete"]] == [[7], [7]]


def test_one_sweep_over_tasks_and_labels_is_as_good_as_several(tmp_path):
    """`aang sweep --task a --task b` ends the names with the task's, and a grid of `train_rows` with their number."""
    parts = []
    for task, rows in (("a", 50), ("b", 50), ("c", 100)):
        added = f", task=t/{task}, train_rows={rows}"
        runs = {f"plain{added}": PLAIN, f"ours{added}": OURS}
        parts.append(write_sweep(tmp_path / task, runs, task=f"t/{task}", rows=rows))
    whole = {"schema": 1, "configurations": [], "trials": []}
    for path in parts:
        found = json.loads((path / "results.json").read_text("utf-8"))
        whole["configurations"] += found["configurations"]
        whole["trials"] += [
            {**t, "directory": f"{path.name}/{t['directory']}"} for t in found["trials"]
        ]
    (tmp_path / "results.json").write_text(json.dumps(whole), "utf-8")
    found = compare_sweeps([tmp_path], ["plain"])
    assert found["methods"][0]["tasks"] == ["a", "b", "c"]
    assert {row["method"] for row in found["tasks"]} == {"ours"}
    assert found["tasks"] == compare_sweeps(parts, ["plain"])["tasks"]


def test_tasks_of_one_name_are_told_apart(tmp_path):
    runs = {"plain": PLAIN, "ours": OURS}
    paths = [write_sweep(tmp_path / n, runs, task=f"{n}/trec") for n in "ab"]
    assert {row["task"] for row in compare_sweeps(paths, ["plain"])["tasks"]} == {
        "a/trec",
        "b/trec",
    }


def test_a_task_keeps_its_own_metric_and_accuracy_stands_beside_it(tmp_path):
    first = write_sweep(tmp_path / "a", {"plain": PLAIN, "ours": OURS}, changed={"metric": "f1"})
    second = write_sweep(tmp_path / "b", {"plain": PLAIN, "ours": OURS}, task="sst2")
    found = compare_sweeps([first, second], ["plain"])
    metrics = found["tasks"][0]["metrics"]
    assert found["tasks"][0]["metric"] == "f1"
    assert metrics["own"] == metrics["f1"] != metrics["accuracy"]
    shown = (
        CliRunner().invoke(main, ["compare", str(first), str(second), "--baseline", "plain"]).stdout
    )
    assert "each task's own*" in shown


def test_what_cannot_be_compared_is_one_message(sweeps, tmp_path):
    for baselines, message in (
        (["plan"], "no sweep has a run named 'plan'; did you mean 'plain'?"),
        (["plain", "x", "y"], "unknown baselines: 2 faults"),
    ):
        with pytest.raises(RunError, match=re.escape(message)):
            compare_sweeps(sweeps, baselines)
    apart = write_sweep(tmp_path / "c", {"plain": {0: 20}, "ours": {1: 30}})
    with pytest.raises(RunError, match="no method shares a finished seed with plain on any task"):
        compare_sweeps([apart], ["plain"])
    with pytest.raises(RunError, match="the same sweep is given twice"):
        compare_sweeps([sweeps[0], sweeps[0]], ["plain"])
    twin = write_sweep(tmp_path / "d", {"plain": PLAIN, "ours": OURS})
    with pytest.raises(RunError, match="holds seed 0, 1, 2 twice"):
        compare_sweeps([sweeps[0], twin], ["plain"])


def test_directories_that_are_no_sweeps_are_named_together(sweeps, tmp_path):
    run = write_run(tmp_path / "run", PLAIN)
    other, broken, outside = tmp_path / "other", tmp_path / "broken", tmp_path / "outside"
    for folder, text in (
        (other, {"schema": 1, "rows": []}),
        (outside, {"configurations": [{"configuration": "a", "task": "t"}], "trials": [
            {"configuration": "a", "seed": 0, "directory": "../run"}]}),
    ):  # fmt: skip
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(text), "utf-8")
    broken.mkdir()
    (broken / "results.json").write_text("{", "utf-8")
    with pytest.raises(RunError) as caught:
        compare_sweeps([*sweeps, run, other, broken, outside], ["plain"])
    message = str(caught.value)
    assert "4 faults" in message
    for part in (
        f"{run} is no sweep: it has no results.json; expected a folder that `aang sweep --out` has made",
        "holds no results of a sweep: `configurations` is missing",
        "broken/results.json is damaged",
        "'../run' does not lie in the sweep",
    ):
        assert part in message


@pytest.mark.parametrize("place", ["a\x00b", "x" * 5000, "/"])
def test_a_place_that_cannot_be_is_damage(place, tmp_path):
    path = write_sweep(tmp_path / "a", {"plain": PLAIN, "ours": OURS})
    text = json.loads((path / "results.json").read_text("utf-8"))
    text["trials"][0]["directory"] = place
    (path / "results.json").write_text(json.dumps(text), "utf-8")
    with pytest.raises(RunError, match=r"does not lie in the sweep|holds no results of a sweep"):
        compare_sweeps([path], ["plain"])


def test_the_command_as_table_json_markdown_csv_and_picture(sweeps, tmp_path):
    paths, file = [str(path) for path in sweeps], tmp_path / "rows.csv"
    more = ["--baseline", "plain", "--csv", str(file), "--plots", str(tmp_path / "plots")]
    result = CliRunner().invoke(main, ["compare", *paths, "--json", *more])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == compare_sweeps(sweeps, ["plain"])
    with file.open(encoding="utf-8") as lines:
        table = list(csv.DictReader(lines))
    assert [(r["task"], r["method"], r["metric"]) for r in table[:3]] == [
        ("trec", "ours", "accuracy"),
        ("trec", "ours", "f1"),
        ("trec", "worse", "accuracy"),
    ]
    assert float(table[0]["delta"]) == pytest.approx(26 / 3 / 40)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"gains.svg", "gains.png"}
    shown = CliRunner().invoke(main, ["compare", *paths, "--baseline", "plain"])
    assert "1/0/1" in shown.stdout
    assert "+21.7" in shown.stdout
    assert "30,000 (1.00×)" in shown.stdout
    assert "note: fewer than 5 tasks" in shown.stderr
    markdown = (
        CliRunner().invoke(main, ["compare", *paths, "--baseline", "plain", "--markdown"]).stdout
    )
    assert markdown.count("\n| --- |") == 2
    assert "**gains over plain, task by task, in points**" in markdown


def test_the_command_says_how_to_name_a_baseline(sweeps, tmp_path):
    result = CliRunner().invoke(main, ["compare", *map(str, sweeps)])
    assert result.exit_code == 2
    assert "--baseline NAME" in result.stderr
    run = str(write_run(tmp_path / "run", PLAIN))
    assert CliRunner().invoke(main, ["compare", run, run, "--plots", "x"]).exit_code == 2
    lost = CliRunner().invoke(main, ["compare", run, "--baseline", "plain"])
    assert lost.exit_code == 1
    assert "is no sweep" in lost.stderr


def test_no_two_methods_look_alike():
    from aang_core.analysis.page.plots import colour_of
    from aang_core.study.sweeps.gains_figure import marker_of

    looks = {(colour_of(number), marker_of(number)) for number in range(40)}
    assert len(looks) == 40


def test_the_picture_escapes_names_and_holds_every_method(tmp_path):
    pytest.importorskip("matplotlib", reason="plots are an extra")
    from matplotlib.text import Text

    from aang_core.analysis.page.plots import drawn, write_plots
    from aang_core.study.sweeps.gains_figure import gains_plot

    names = [
        "<b>bold</b> & $x$",
        "_hidden",
        "a name that is much longer than anybody would call a run, and goes on",
        "another long one of more than forty characters",
    ]
    runs = {"plain": PLAIN, **dict.fromkeys(names, OURS), "fails": {0: 1, 1: 1, 2: 2}}
    folders = {name: f"run-{n}" for n, name in enumerate(runs)}
    paths = []
    for task in ("one", "two"):
        path = write_sweep(
            tmp_path / task,
            {folders[n]: right for n, right in runs.items()},
            task=f"<i>{task}\x07</i>",
        )
        text = (path / "results.json").read_text("utf-8")
        for name, folder in folders.items():
            text = text.replace(
                f'"configuration": "{folder}"', f'"configuration": {json.dumps(name)}'
            )
        (path / "results.json").write_text(text, "utf-8")
        paths.append(path)
    plot = gains_plot(compare_sweeps(paths, ["plain"]))
    svg, _ = write_plots([plot], tmp_path / "plots")
    shown = "".join(ET.parse(svg).getroot().itertext())
    assert "<b>bold</b> & $x$" in shown
    assert "_hidden" in shown
    assert "mean over 2 tasks" in shown
    with drawn(plot, title=False) as figure:
        box = figure.bbox.padded(1.0)
        figure.savefig(tmp_path / "drawn.svg")
        extents = [
            t.get_window_extent() for t in figure.findobj(Text) if t.get_visible() and t.get_text()
        ]
    assert all(
        box.x0 <= t.x0 and t.x1 <= box.x1 and box.y0 <= t.y0 and t.y1 <= box.y1 for t in extents
    )
