"""`aang_core.select` from end to end: what is ranked, same seed same bytes, kills and resumes, what it leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from _selections import POOLS, settings, write_pools
from _tasks import write_split, write_task
from aang_cli.main import main
from click.testing import CliRunner

import aang_core
from aang_core.data.auxiliary import ROWS, read_selection
from aang_core.data.splits import draw_dev_rows
from aang_core.data.task import load_task
from aang_core.errors import RunError
from aang_core.registry.registry import load_registry
from aang_core.selection.pools import load_pools

FAST = {"options": {"epochs": 2, "batch_rows": 4}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_pools(tmp_path_factory.mktemp("pools"))


@pytest.fixture(scope="module")
def chosen(root, tmp_path_factory):
    """A discriminator's selection with its picture, uninterrupted."""
    out = tmp_path_factory.mktemp("selections") / "whole"
    selection = aang_core.select(
        out=out, **settings(root, "discriminator-bce", picture_rows=6, top=20, **FAST)
    )
    return out, selection


def lines(out):
    return [json.loads(text) for text in (out / "selection.jsonl").read_text("utf-8").splitlines()]


def test_every_candidate_is_ranked_once_and_the_best_first(root, chosen):
    out, selection = chosen
    rows = lines(out)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] < scores[0] <= 1
    assert len({(row["task"], row["row"]) for row in rows}) == len(rows)
    # 8 of each pool are trained on; the text file has an empty line, which is neither trained on nor ranked
    counts = {task: sum(row["task"] == task for row in rows) for task in selection.names}
    assert counts == {"near": 32, "pairs": 32, "numbers": 32, "lines": 22}
    assert all(row["row"] != 30 for row in rows if row["task"] == "lines")


def test_the_summary_says_where_everything_comes_from(root, chosen):
    out, selection = chosen
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary == selection.summary
    assert summary["target"] == str(root / "target")
    assert list(summary["pools"].values()) == [str(root / name) for name in POOLS]
    assert summary["options"]["epochs"] == 2
    assert summary["options"]["lr"] == 1e-4
    top = selection.top(20)
    assert {row["task"]: row["in_top"] for row in summary["tasks"]} == {
        name: len(top.get(name, ())) for name in selection.names
    }
    assert sum(row["in_top"] for row in summary["tasks"]) == 20
    assert [row["labelled"] for row in summary["tasks"]] == [True, True, True, False]
    assert summary["cost"]["cpu_seconds"] > 0
    assert not (out / "work").exists()


def test_the_picture_shows_rows_of_every_task(chosen):
    out, _ = chosen
    points = json.loads((out / "tsne.json").read_text("utf-8"))
    names = ["target (target)", "near", "pairs", "numbers", "lines"]
    assert {point["task"] for point in points} == set(names)
    assert all(np.isfinite([point["x"], point["y"]]).all() for point in points)
    pytest.importorskip("matplotlib", reason="pictures are an extra")
    svg = (out / "tsne.svg").read_text("utf-8")
    assert all(name in svg for name in names)
    assert (out / "tsne.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(root, chosen, tmp_path):
    out, _ = chosen
    given = settings(root, "discriminator-bce", picture_rows=6, top=20, **FAST)
    aang_core.select(out=tmp_path / "again", **given)
    for name in ("selection.jsonl", "tsne.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    aang_core.select(out=tmp_path / "other", **{**given, "seed": 1, "picture_rows": 0})
    assert lines(tmp_path / "other") != lines(out)


@pytest.mark.parametrize(
    ("selector", "options"),
    [("discriminator-ce", FAST["options"]), ("embedding", {}), ("gradient", {"head_steps": 2})],
)
def test_a_selection_broken_half_way_goes_on_to_the_same_bytes(root, tmp_path, selector, options):
    given = settings(root, selector, options=options)
    aang_core.select(out=tmp_path / "whole", **given)

    def stop(what, done, total):
        if what == "scoring" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aang_core.select(out=tmp_path / "broken", progress=stop, **given)
    with pytest.raises(RunError, match="unfinished; go on with"):
        read_selection(tmp_path / "broken")
    said = []
    aang_core.select(
        out=tmp_path / "broken", resume=True, progress=lambda what, *_: said.append(what)
    )
    assert set(said) == {"reading the pools", "scoring"}, "nothing is trained a second time"
    whole, broken = (tmp_path / n / "selection.jsonl" for n in ("whole", "broken"))
    assert whole.read_bytes() == broken.read_bytes()


def test_a_process_killed_while_it_scores_leaves_what_a_resume_needs(root, chosen, tmp_path):
    out, _ = chosen
    text = (out / "selection.toml").read_text("utf-8")
    words = ["select", "--selector", "discriminator-bce", "--model", "scratch:tiny"]
    words += ["--examples-per-task", "8", "--epochs", "2", "--top", "20", "--out", "killed"]
    words += ["--target", str(root / "target")]
    words += [word for name in POOLS for word in ("--from", str(root / name))]
    for setting in ("options.batch_rows=4", "shard_rows=16", "picture_rows=6"):
        words += ["--set", setting]
    process = subprocess.Popen(
        [sys.executable, "-m", "aang_cli", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    scores = tmp_path / "killed" / "work" / "scores"
    while process.poll() is None and len(list(scores.glob("*.safetensors"))) < 2:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert (tmp_path / "killed" / "selection.toml").read_text("utf-8") == text
    aang_core.select(out=tmp_path / "killed", resume=True)
    assert lines(tmp_path / "killed") == lines(out)
    kept = read_selection(tmp_path / "killed").summary["cost"]
    assert kept["seconds"] > 0


def test_a_finished_selection_is_read_not_made_again(root, chosen):
    out, selection = chosen
    before = (out / "selection.jsonl").stat().st_mtime_ns
    again = aang_core.select(out=out, resume=True)
    assert (out / "selection.jsonl").stat().st_mtime_ns == before
    assert again.row.tolist() == selection.row.tolist()
    assert again.top(5) == selection.top(5)


def test_matched_controls_have_the_same_tasks_at_every_rank(root, chosen, tmp_path):
    out, selection = chosen
    given = settings(root, "random-matched", options={"like": str(out)})
    control = aang_core.select(out=tmp_path / "control", **given)
    assert control.task.tolist() == selection.task.tolist()
    assert control.row.tolist() != selection.row.tolist()
    for n in (1, 7, 50, len(selection)):
        assert {k: len(v) for k, v in control.top(n).items()} == {
            k: len(v) for k, v in selection.top(n).items()
        }
    everything = len(selection)
    assert control.top(everything) == selection.top(everything)


def test_random_rows_do_not_depend_on_the_shards(root, tmp_path):
    found = [
        aang_core.select(out=tmp_path / str(size), **settings(root, shard_rows=size)).row.tolist()
        for size in (3, 16, 1000)
    ]
    assert found[0] == found[1] == found[2]


def test_the_command_prints_one_document_and_resumes_by_itself(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["select", "--target", str(root / "target"), "--from", str(root / "near")]
    words += ["--selector", "random", "--set", "picture_rows=0", "--top", "5", "--out", "out"]
    done = CliRunner().invoke(main, [*words, "--model", "scratch:tiny", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tasks"][0]["in_top"] == 5
    again = CliRunner().invoke(main, ["select", "--resume", "--out", "out"])
    assert again.exit_code == 0, again.output
    assert "The 5 best of" in again.stdout
    refused = CliRunner().invoke(main, ["select", "--resume", "--out", "out", "--seed", "3"])
    assert refused.exit_code == 1
    assert "seed is 3 here and 0 there" in refused.stderr


def test_selectors_are_listed_without_torch():
    code = (
        "import sys\nfrom aang_cli.main import main\n"
        "main(['list-selectors', '--json'], standalone_mode=False)\n"
        "assert not {'torch', 'datasets', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {"discriminator-bce", "embedding", "gradient", "random"} <= rows.keys()
    assert rows["discriminator-bce"]["options"]["epochs"] == 5


def test_a_selector_reads_the_dev_rows_that_a_run_with_its_seed_keeps(root, tmp_path):
    """As if the task had no others; but a text of a row that is not kept is a leak all the same."""
    target = root / "target"
    task = load_task(str(target), reads=("text",), registered={}, external={})
    kept = list(draw_dev_rows(task, 4, seed=1).splits["dev"])
    write_task(tmp_path / "target")
    named = [{**row, "label": task.label_names[row["label"]]} for row in kept]
    write_split(tmp_path / "target", "dev", named)
    left = next(row["text"] for row in task.splits["dev"] if row not in kept)
    lines = (root / "lines.txt").read_text("utf-8").splitlines()
    (tmp_path / "texts.txt").write_text("\n".join([left, *lines]), "utf-8")
    given = settings(
        root, "gradient", seed=1, pools=(), options={"head_steps": 1}, exclude_leaks=True
    )
    given["from_"] = [str(root / "near"), str(tmp_path / "texts.txt")]
    drawn = aang_core.select(out=tmp_path / "drawn", dev_rows=4, **given)
    assert drawn.summary["dev_rows"] == 4
    assert drawn.summary["tasks"][1]["leaks"] == [0]
    given["target"] = str(tmp_path / "target")
    (tmp_path / "texts.txt").write_text("\n".join(["", *lines]), "utf-8")  # or it would be scored
    aang_core.select(out=tmp_path / "by-hand", **given)
    given["target"] = str(target)
    aang_core.select(out=tmp_path / "all", **given)
    rows = {n: (tmp_path / n / ROWS).read_bytes() for n in ("drawn", "by-hand", "all")}
    assert rows["drawn"] == rows["by-hand"] != rows["all"]


def test_text_files_stay_on_disk(root):
    pool = load_pools([str(root / "lines.txt")], ("text", "text_pair"), load_registry())[0]
    assert pool.data.cache_files, "a data set without files would lie in memory"
    assert pool.examples([2, 29]) == [
        {"text": "A plain line with the number 2 and nothing else."},
        {"text": "A plain line with the number 29 and nothing else."},
    ]


def test_a_target_in_one_messy_file_is_read_as_a_run_reads_it(root, tmp_path):
    """Columns of other names, and rows without a label: the target's alone, as on ``aang run``."""
    head = "message,queue\n"
    rows = [f"Where is parcel number {i}?,{'ab'[i % 2] if i < 40 else ''}" for i in range(60)]
    target = tmp_path / "support.csv"
    target.write_text(head + "\n".join(rows) + "\n", "utf-8")
    words = ["select", "--target", target, "--from", root / "near", "--selector", "random"]
    words += ["--model", "scratch:tiny", "--out", tmp_path / "chosen", "--set", "picture_rows=0"]
    named = ["--column", "text=message", "--column", "label=queue"]
    refused = CliRunner().invoke(main, [*map(str, words), *named])
    assert refused.exit_code == 1
    assert "--unlabelled empty" in refused.stderr
    done = CliRunner().invoke(main, [*map(str, words), *named, "--unlabelled", "empty"])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(main, ["select", "--resume", "--out", str(tmp_path / "chosen")])
    assert again.exit_code == 0, again.output
    kept = (tmp_path / "chosen" / "selection.toml").read_text("utf-8")
    assert 'unlabelled = "empty"' in kept
    assert 'text = "message"' in kept
