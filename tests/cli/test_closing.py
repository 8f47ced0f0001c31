"""What `aang run` says on the way and at its end: remarks once, a baseline on request, and the answer last."""

import json

import pytest
from _tasks import flags, write_task
from aang_cli.main import main
from click.testing import CliRunner


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def aang(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_a_remark_is_said_once_a_run_and_kept_by_seed(task, tmp_path):
    cut = ("--set", "training.max_length=8", "--method", "finetune", "--seed", 0, "--seed", 1)
    out = tmp_path / "run"
    done = aang("run", "--task", task, "--out", out, *flags(max_steps=1), *cut)
    assert done.exit_code == 0, done.stderr
    remark = "44 of 44 examples are longer than 8 positions and were cut"
    assert done.stderr.count(remark) == 1
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert all(remark in seed["remarks"] for seed in report["seeds"])
    loud = aang(
        "run", "--task", task, "--out", tmp_path / "loud", "--verbose", *flags(max_steps=1), *cut
    )
    assert loud.stderr.count(remark) == 2
    quiet = aang(
        "run", "--task", task, "--out", tmp_path / "q", "--quiet", *flags(max_steps=1), *cut
    )
    assert quiet.exit_code == 0
    assert quiet.stderr == ""
    assert "accuracy" in quiet.stdout
    assert aang("run", "--quiet", "--verbose").exit_code == 2


def test_a_run_says_how_to_get_a_baseline_and_compares_with_it(task, tmp_path):
    """The command of the last line, copied, trains the baseline alone and ends with one sentence about both."""
    out = tmp_path / "run"
    first = aang("run", "--task", task, "--out", out, *flags(max_steps=2))
    assert first.exit_code == 0, first.stderr
    lines = first.stdout.strip().splitlines()
    assert lines[0].startswith("accuracy on test: ")
    assert "standard error, 10 rows" in lines[0]
    assert "always answering" in lines[0]
    assert lines[-1].split() == [
        *("aang", "run", "--resume", "--out", str(out), "--against", "finetune")
    ]
    kept = (out / "seed.json").read_bytes()
    again = aang(*lines[-1].split()[1:])
    assert again.exit_code == 0, again.stderr
    assert (out / "seed.json").read_bytes() == kept  # what is finished is not trained again
    last = again.stdout.strip().splitlines()[-1]
    assert last.startswith(("The objectives ", "No difference can be seen: "))
    plain = json.loads((tmp_path / "run-finetune" / "report.json").read_text("utf-8"))
    assert (plain["method"], len(plain["seeds"])) == ("finetune", 1)
    machine = json.loads(aang(*lines[-1].split()[1:], "--json").stdout)
    assert machine["against"]["said"] == last
    assert machine["against"]["directory"] == str(tmp_path / "run-finetune")
    refused = aang("run", "--task", task, "--out", tmp_path / "run", "--against", "finetune")
    assert refused.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--method", "finetune"], 1, "cannot be set against itself"),
        (["--dry-run"], 2, "exclude each other"),
        (["--processes", "2"], 2, "exclude each other"),
        (["--top", "3", "--top", "4"], 2, "--control none"),
    ],
)
def test_what_cannot_have_a_baseline_is_refused(arguments, code, said, task, tmp_path):
    done = aang("run", "--task", task, "--against", "finetune", "--out", tmp_path / "r", *arguments)
    assert done.exit_code == code
    assert said in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_baselines_directory_that_is_taken_is_refused_before_training(task, tmp_path):
    (tmp_path / "r-finetune").mkdir()
    (tmp_path / "r-finetune" / "notes.txt").write_text("mine", "utf-8")
    done = aang("run", "--task", task, "--against", "finetune", "--out", tmp_path / "r", *flags())
    assert done.exit_code == 1
    assert "r-finetune" in done.stderr
    assert not (tmp_path / "r").exists()
