"""Rows with an empty text or label: refused with a hint, counted by the audit, left out on request."""

import json

import pytest
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.data.auxiliary import load_auxiliary
from aang_core.data.task import load_task
from aang_core.errors import TaskError
from aang_core.registry import load_registry
from aang_core.selection.pools import load_pools

READS = ("text", "text_pair")


def load(path, drop_empty=False):
    return load_task(str(path), reads=READS, registered={}, external={}, drop_empty=drop_empty)


@pytest.fixture
def tickets(tmp_path):
    """One csv file of 40 rows; line 5 has no text, line 9 blanks alone, line 12 no label."""
    rows = [[f"ticket number {n}", "ab"[n % 2]] for n in range(40)]
    rows[3][0], rows[7][0], rows[10][1] = "", "  ", ""
    path = tmp_path / "tickets.csv"
    path.write_text("text,label\n" + "\n".join(map(",".join, rows)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path):
    """jsonl splits; a pair's second text, a label of dev and texts of test are missing, test has no labels."""
    rows = [{"text": f"one {n}", "text_pair": f"two {n}", "label": "ab"[n % 2]} for n in range(12)]
    rows[2]["text_pair"], rows[9]["label"] = None, None
    unlabelled = [{"text": f"test {n}" if n else "", "text_pair": "x"} for n in range(3)]
    for name, part in (("train", rows[:8]), ("dev", rows[8:]), ("test", unlabelled)):
        lines = "\n".join(map(json.dumps, part))
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def test_the_refusal_names_the_way_out_once(tickets):
    with pytest.raises(TaskError) as caught:
        load(tickets)
    message = str(caught.value)
    assert "tickets.csv:5: column 'text' is empty" in message
    assert message.count("--drop-empty") == 1


def test_rows_with_an_empty_text_or_label_are_left_out_on_request_and_counted(tickets):
    task = load(tickets, drop_empty=True)
    assert task.dropped == {"train": {"text": [5, 9], "label": [12]}}
    assert sum(map(len, task.splits.values())) == 37
    assert (
        f"{tickets}: 3 of 40 rows were left out: 2 with an empty 'text' (lines 5, 9), "
        "1 with an empty 'label' (line 12)" in task.remarks
    )


def test_pairs_and_splits_without_labels(pairs):
    task = load(pairs, drop_empty=True)
    assert task.dropped == {
        "train": {"text_pair": [3]},
        "dev": {"label": [2]},
        "test": {"text": [1]},
    }
    assert [len(task.splits[split]) for split in ("train", "dev", "test")] == [7, 3, 2]
    assert task.splits["test"].column_names == list(READS)  # no label: predictions only


def test_the_file_of_the_task_may_say_it(pairs):
    (pairs / "task.toml").write_text("drop_empty = true\n", encoding="utf-8")
    assert load(pairs).dropped["train"] == {"text_pair": [3]}
    (pairs / "task.toml").write_text('drop_empty = "yes"\n', encoding="utf-8")
    with pytest.raises(TaskError, match=r"`drop_empty` must be true or false"):
        load(pairs)


def test_a_split_of_empty_rows_alone_is_refused(pairs):
    (pairs / "dev.jsonl").write_text('{"text": "", "text_pair": "x", "label": "a"}')
    with pytest.raises(TaskError, match=r"dev\.jsonl: every row has an empty cell in 'text'"):
        load(pairs, drop_empty=True)


def test_whole_tasks_stay_as_they_are(pairs):
    for path in pairs.glob("*.jsonl"):
        path.write_text(
            '{"text": "x", "text_pair": "y", "label": "a"}\n{"text": "z", "text_pair": "y", "label": "b"}'
        )
    assert load(pairs, drop_empty=True).dropped == {}
    assert load(pairs, drop_empty=True).remarks == load(pairs).remarks


def test_the_audit_counts_them_instead_of_refusing_the_task(tickets):
    result = CliRunner().invoke(main, ["audit", str(tickets), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["dropped"] == {
        "train": {"text": {"rows": 2, "first": [5, 9]}, "label": {"rows": 1, "first": [12]}}
    }
    assert "3 of 40 rows were left out" in result.stderr
    assert "--drop-empty" in result.stderr
    assert "nothing was found" not in result.stderr
    assert CliRunner().invoke(main, ["audit", str(tickets), "--strict"]).exit_code == 1


def test_a_run_refuses_them_or_leaves_them_out(tickets):
    how = [
        "run",
        "--task",
        str(tickets),
        "--model",
        "scratch:tiny",
        "--dry-run",
        "--method",
        "finetune",
    ]
    refused = CliRunner().invoke(main, how)
    assert refused.exit_code == 1
    assert "--drop-empty" in refused.stderr
    planned = CliRunner().invoke(main, [*how, "--drop-empty"])
    assert planned.exit_code == 0, planned.output
    assert "3 of 40 rows were left out" in planned.stderr


def test_further_tasks_are_read_in_the_same_way(tickets):
    registry = load_registry()
    with pytest.raises(TaskError, match="--drop-empty"):
        load_auxiliary([str(tickets)], READS, registry)
    [task] = load_auxiliary([str(tickets)], READS, registry, drop_empty=True).values()
    assert task.dropped["train"]["label"] == [12]


def test_pools_of_a_selection_are_read_in_the_same_way(tickets):
    registry = load_registry()
    with pytest.raises(TaskError, match="--drop-empty"):
        load_pools([str(tickets)], READS, registry)
    [pool] = load_pools([str(tickets)], READS, registry, drop_empty=True)
    assert len(pool) == len(load(tickets, drop_empty=True).splits["train"])
