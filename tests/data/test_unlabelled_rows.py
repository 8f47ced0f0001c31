"""Rows without a label as texts to train on, and columns of other names: in the file, on the flags, to the end."""

import json

import pytest
from _tasks import flags
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.config.settings import RunConfig
from aang_core.data.task import load_task
from aang_core.errors import TaskError
from aang_core.registry import load_registry
from aang_core.study.folds import cross_validate

READS = ("text", "text_pair")
NAMED = {"text": "message", "label": "queue"}


def load(path, **how):
    return load_task(str(path), reads=READS, registered={}, external={}, **how)


@pytest.fixture
def tickets(tmp_path):
    """24 labelled rows and 30 without a label, of which one repeats a labelled text and one has no text."""
    rows = [[f"{n}", f"ticket number {n}", "ab"[n % 2] if n < 24 else ""] for n in range(54)]
    rows[30][1], rows[40][1] = "Ticket  number 3", " "
    path = tmp_path / "tickets.csv"
    path.write_text(
        "id,message,queue\n" + "\n".join(map(",".join, rows)) + "\n", encoding="utf-8-sig"
    )
    return path


def aang(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_refusal_names_the_flag_once(tickets):
    with pytest.raises(TaskError) as caught:
        load(tickets, columns=NAMED)
    message = str(caught.value)
    assert "tickets.csv:26: column 'queue' holds no label" in message
    assert message.count("--unlabelled empty") == 1
    with pytest.raises(TaskError, match="--column text="):
        load(tickets)


def test_rows_without_a_label_are_texts_and_never_in_a_split(tickets):
    with pytest.raises(TaskError, match=r"tickets\.csv:42: column 'message' is empty"):
        load(tickets, columns=NAMED, unlabelled="empty")
    task = load(tickets, columns=NAMED, unlabelled="empty", drop_empty=True)
    assert sum(map(len, task.splits.values())) == 24
    assert task.unlabelled["text"] == [
        f"ticket number {n}" for n in range(24, 54) if n not in (30, 40)
    ]
    assert task.unlabelled.column_names == ["text"]
    assert (
        f"{tickets}: 29 training rows have no label; the texts of 28 are data without labels "
        "(1 repeat a labelled text)" in task.remarks
    )
    assert "task:unlabelled" in task.capabilities
    assert task.dropped == {"train": {"message": [42]}}


def test_task_toml_says_the_same(tickets):
    toml = tickets.parent / "task.toml"
    toml.write_text(
        'data = "tickets.csv"\ndrop_empty = true\nunlabelled = "empty"\n'
        'columns = { text = "message", label = "queue" }\n',
        encoding="utf-8",
    )
    assert len(load(toml).unlabelled) == 28
    toml.write_text('unlabelled = "some"\n', encoding="utf-8")
    with pytest.raises(TaskError, match="`unlabelled` must be one of"):
        load(toml)


def test_dev_and_test_still_need_their_labels_and_train_some(tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(8)]
    for split, part in (("train", rows[:6]), ("dev", [*rows[6:], {"text": "more", "label": ""}])):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)), "utf-8")
    with pytest.raises(TaskError) as caught:
        load(tmp_path, unlabelled="empty")
    assert "dev.jsonl:3: column 'label' holds no label" in str(caught.value)
    assert "--unlabelled" not in str(caught.value)
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": "a", "label": ""}\n{"text": "b", "label": null}\n', "utf-8")
    with pytest.raises(TaskError, match="holds no label at all"):
        load(bare, unlabelled="empty")


def test_a_text_of_test_is_not_trained_on_without_its_label(tmp_path):
    train = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(6)]
    train += [{"text": "TEST 0", "label": None}, {"text": "new", "label": None}]
    parts = {"train": train, "dev": train[:2], "test": [{"text": f"test {n}"} for n in range(3)]}
    for split, part in parts.items():
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)), "utf-8")
    assert load(tmp_path, unlabelled="empty").unlabelled["text"] == ["new"]


def test_roles_are_checked(tickets):
    with pytest.raises(
        TaskError, match=r"'txt' is no role; did you mean 'text'\?.*text, text_pair, label"
    ):
        load(tickets, columns={"txt": "message"})
    assert aang("run", "--task", tickets, "--column", "message").exit_code == 2
    refused = aang("run", "--task", "sample", "--column", "text=message", "--dry-run")
    assert refused.exit_code == 1
    assert "leave out columns" in refused.stderr


def test_one_csv_with_few_labels_just_works(tickets, tmp_path):
    """Audit, listing, a run on the space of few labels, and folds: the texts reach every one of them."""
    how = ["--column", "text=message", "--column", "label=queue", "--unlabelled", "empty"]
    audit = aang("audit", tickets, *how)
    assert audit.exit_code == 0, audit.stderr
    assert "the texts of 28 are data without labels" in audit.stderr
    listed = aang(
        "list-objectives", "--space", "uda", "--task", tickets, "--drop-empty", "--json", *how
    )
    assert "unlabelled/" in listed.stdout, listed.stderr
    out = tmp_path / "run"
    quick = flags(max_steps=2, final_epochs=0)
    quick[quick.index("--space") + 1] = "uda"
    done = aang("run", "--task", tickets, "--out", out, "--drop-empty", *how, *quick)
    assert done.exit_code == 0, done.stderr
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert any(name.startswith("unlabelled/") for name in report["weights"]["objectives"])
    assert aang("run", "--resume", "--out", out).exit_code == 0


def test_folds_take_the_unlabelled_texts_along(tickets, tmp_path, monkeypatch):
    monkeypatch.setattr("aang_core.study.folds._carried_out", lambda *_: 1 / 0)
    config = RunConfig.from_mapping(
        {"task": str(tickets), "columns": NAMED, "unlabelled": "empty", "drop_empty": True,
         "space": "uda", "model": "scratch:tiny"}
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError):  # after the folds are written, before one is trained
        cross_validate(config, 3, tmp_path / "folds", load_registry())
    for number in (1, 2, 3):
        task = load(tmp_path / "folds" / "data" / f"fold-{number}")
        assert sum(map(len, task.splits.values())) == 24
        assert len(task.unlabelled) == 28


def test_a_csv_of_other_columns_is_told_both_flags_and_which_spaces_fit(tickets):
    refused = aang("run", "--task", tickets, "--dry-run")
    assert "--column text=... --column label=..." in refused.stderr
    how = ["--column", "text=message", "--column", "label=queue", "--drop-empty"]
    default = aang("run", "--task", tickets, "--model", "scratch:tiny", *how, "--dry-run")
    assert "needs the data source 'in-domain'" in default.stderr
    assert "or take a space without it, such as " in default.stderr
    assert " td" in default.stderr.partition("such as ")[2]


def test_predict_reads_the_columns_of_the_run(tickets, tmp_path):
    how = ["--column", "text=message", "--column", "label=queue", "--drop-empty"]
    out, labels = tmp_path / "run", tmp_path / "labels.csv"
    run = aang(
        "run", "--task", tickets, "--method", "finetune", "--out", out, *how, *flags(max_steps=1)
    )
    assert run.exit_code == 0, run.stderr
    for name in ("message", "text"):
        new = tmp_path / f"{name}.csv"
        new.write_text(f"id,{name}\n7,ticket number 90\n", "utf-8")
        labels.unlink(missing_ok=True)
        done = aang("predict", out, new, "--out", labels)
        assert done.exit_code == 0, done.stderr
        assert labels.read_text("utf-8").startswith(
            f"id,{name},label,probability\n7,ticket number 90,"
        )
    new.write_text("id,text\n7,\n8,ticket number 91\n", "utf-8")
    assert "--drop-empty" in aang("predict", out, new, "--json").stderr
    done = aang("predict", out, new, "--json", "--drop-empty")
    assert [row["line"] for row in json.loads(done.stdout)] == [3]
    assert "1 of 2 rows were left out: 1 with an empty 'text' (line 2)" in done.stderr
