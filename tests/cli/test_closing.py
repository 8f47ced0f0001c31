"""What `aang run` says on the way and at its end: remarks once, a baseline on request, and the answer last."""

import html
import json
import shutil

import pytest
from _tasks import flags, write_task
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError
from aang_core.registry.registry import load_registry
from aang_core.train.finish import guard
from aang_core.train.resolve import resolve


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
    first = aang("run", "--task", task, "--out", out, "--against", "none", *flags(max_steps=2))
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
    kept = json.loads((out / "against.json").read_text("utf-8"))
    assert (kept["said"], kept["directory"], kept["baseline"]) == (last, "run-finetune", "finetune")
    page = aang("report", out)
    assert page.exit_code == 0, page.stderr
    assert f'<p class="sentence">{html.escape(last)}.</p>' in (out / "report.html").read_text(
        "utf-8"
    )


def test_few_labels_have_a_baseline_unasked_and_a_resumed_run_remembers(
    task, tmp_path, monkeypatch
):
    monkeypatch.delenv("AANG_AGAINST")
    out = tmp_path / "few"
    how = ("run", "--task", task, "--out", out, *flags(max_steps=1, final_epochs=0))
    plan = aang(*how, "--dry-run", "--json")
    planned = json.loads(plan.stdout)
    assert planned["baseline"] == "finetune"
    assert planned["baseline_minutes"] > 0
    assert "plain fine-tuning afterwards, about" in aang(*how, "--dry-run").stdout
    assert (
        json.loads(aang(*how, "--dry-run", "--json", "--against", "none").stdout)["baseline"] == ""
    )
    done = aang(*how, "--json")
    assert done.exit_code == 0, done.stderr
    assert "at most 500 labelled rows train: plain fine-tuning runs too" in done.stderr
    assert json.loads(done.stdout)["against"]["directory"] == str(tmp_path / "few-finetune")
    shutil.rmtree(tmp_path / "few-finetune")
    again = aang("run", "--resume", "--out", out, "--quiet")
    assert again.exit_code == 0, again.stderr
    assert again.stderr == ""
    assert (tmp_path / "few-finetune" / "report.json").is_file()
    assert again.stdout.strip().splitlines()[-1].startswith(("The objectives ", "No difference"))


def test_a_run_without_a_baseline_is_resumed_without_one(task, tmp_path, monkeypatch):
    out = tmp_path / "alone"
    how = ("run", "--task", task, "--out", out, *flags(max_steps=1, final_epochs=0))
    assert aang(*how).exit_code == 0
    monkeypatch.delenv("AANG_AGAINST")
    again = aang("run", "--resume", "--out", out)
    assert again.exit_code == 0, again.stderr
    assert not (tmp_path / "alone-finetune").exists()
    assert again.stdout.strip().endswith("--against finetune")


def test_auto_means_few_labelled_rows_and_another_method_than_finetune(task, monkeypatch):
    registry = load_registry()
    for method, few, rows, expected in (
        ("aang", 24, 0, "finetune"),
        ("aang", 23, 0, ""),
        ("static", 10, 8, "finetune"),
        ("finetune", 500, 0, ""),
    ):
        monkeypatch.setattr(guard, "FEW", few)
        config = RunConfig.from_mapping(
            {
                "task": str(task),
                "model": "scratch:tiny",
                "space": "td",
                "method": method,
                "train_rows": rows,
            }
        )
        resolved = resolve(config, registry)
        assert guard.baseline_of(resolved, "auto") == expected
        assert guard.baseline_of(resolved, "none") == guard.baseline_of(resolved, "") == ""
    with pytest.raises(ConfigError, match="against must be one of auto, finetune, none"):
        guard.baseline_of(resolved, "static")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--method", "finetune"], 1, "cannot be set against itself"),
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
