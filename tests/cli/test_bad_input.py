"""Bad input through the command line: one clear message, exit 1 or 2, and nothing written or lost."""

import json
import os
import subprocess
import sys

import pytest
from _plugins import PLUGIN, write_distribution
from _tasks import examples, flags, write_split, write_task
from aang_cli.main import main
from click.testing import CliRunner


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A good task ``boxes`` in the working directory, to be spoilt."""
    monkeypatch.chdir(tmp_path)
    return write_task(tmp_path / "boxes")


def state(folder):
    """Every file and what it holds."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(folder, *arguments, code=1):
    """What the command said on refusing, after making sure that it left everything as it was."""
    before = state(folder)
    done = CliRunner().invoke(main, ["run", *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    assert done.stderr.count("Error: ") == 1
    assert "Traceback" not in done.stderr
    assert state(folder) == before
    return done.stderr


UNKNOWN = {
    "space": (["--space", "tded"], 1, "did you mean 'td+ed'"),
    "primitive": (["--with", "span-maks"], 1, "did you mean 'span-mask'"),
    "method": (["--method", "aagn"], 2, "'aagn' is not one of"),
    "method in a setting": (["--set", "method=tarten"], 1, "did you mean 'tartan'"),
    "model": (["--model", "no/such-model"], 1, "no/such-model"),
    "model folder": (["--model", "./nowhere"], 1, "./nowhere"),
    "task": (["--task", "nowhere"], 1, "'nowhere' is neither a folder, a file"),
    "setting": (["--set", "training.max_step=3"], 1, "did you mean 'max_steps'"),
    "setting's form": (["--set", "training"], 1, "expected KEY=VALUE"),
    "plugin": (["--plugins", "text,nowhere"], 1, "nowhere"),
    "device": (["--device", "warp"], 1, "no device 'warp'"),
    "config": (["--config", "nowhere.toml"], 1, "nowhere.toml"),
    "option of a primitive": (["--set", "primitives.mask.rat=0.2"], 1, "rat"),
    "flag": (["--spice", "td"], 2, "--space"),
    "steps below 0": (["--max-steps", "-3"], 1, "--max-steps: `training.max_steps` must be"),
    "no steps": (["--max-steps", "0"], 1, "must be a whole number of at least 1"),
    "steps in words": (["--max-steps", "many"], 2, "'many' is not a valid integer"),
    "seed below 0": (["--seed", "-1"], 1, "--seed"),
    "a seed twice": (["--seed", "1", "--seed", "1"], 1, "twice"),
    "rows below 0": (["--train-rows", "-1"], 1, "--train-rows"),
    "more rows than there are": (["--train-rows", "25"], 1, "24"),
    "fewer rows than classes": (["--train-rows", "1"], 1, "2"),
    "more dev rows than there are": (["--dev-rows", "999"], 1, "the whole dev split"),
    "corpus": (["--external", "in-domain=nowhere.txt"], 1, "nowhere.txt"),
    "corpus form": (["--external", "nowhere.txt"], 2, "expected NAME=FILE"),
    "learning rate": (["--set", "training.lr=nan"], 1, "training.lr"),
    "resume nothing": (["--resume", "--out", "nowhere"], 1, "no run to resume"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_unknown_or_impossible(case, task, tmp_path):
    given, code, said = UNKNOWN[case]
    out = [] if "--out" in given else ["--out", "out"]
    usual = [] if "--resume" in given else ["--task", "boxes", *flags()]
    assert said in refused(tmp_path, *usual, *out, *given, code=code)


def test_every_fault_of_the_settings_at_once(task, tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text("[training]\nlr = -1\n\n[meta]\nengin = 'fused'\n", "utf-8")
    said = refused(tmp_path, "--config", str(file), "--max-steps", "-1", "--out", "out")
    assert "3 faults" in said
    assert f"{file}:2: `training.lr`" in said
    assert f"{file}:5: `meta.engin` is no setting; did you mean 'engine'" in said
    assert "--max-steps: `training.max_steps`" in said


def rows_with(**changed):
    """Twelve examples whose third differs."""
    rows = examples(12, 100)
    rows[2] = {**rows[2], **changed}
    return rows


SPOILT = {
    "empty split": (lambda f: (f / "dev.jsonl").write_text(""), "dev.jsonl is empty"),
    "missing train": (lambda f: (f / "train.jsonl").unlink(), "no train split"),
    "no split at all": (lambda f: [p.unlink() for p in f.iterdir()], "holds no task"),
    "not JSON": (
        lambda f: (f / "dev.jsonl").write_text('{"text": "a", "label": "fruit"}\n{"text": \n'),
        "dev.jsonl:2: not JSON",
    ),
    "not an object": (lambda f: (f / "dev.jsonl").write_text("[1]\n"), "dev.jsonl:1"),
    "not UTF-8": (lambda f: (f / "dev.jsonl").write_bytes(b"{}\n\xff\n"), "dev.jsonl:2"),
    "label that train lacks": (
        lambda f: write_split(f, "dev", rows_with(label="glass")),
        "'glass'",
    ),
    "label in test that train lacks": (
        lambda f: write_split(f, "test", rows_with(label="glass")),
        "test.jsonl:3",
    ),
    "no label": (lambda f: write_split(f, "train", rows_with(label=None)), "train.jsonl:3"),
    "no text": (lambda f: write_split(f, "train", rows_with(text="  ")), "train.jsonl:3"),
    "a number for a text": (lambda f: write_split(f, "train", rows_with(text=7)), "train.jsonl:3"),
    "text column that is not there": (
        lambda f: (f / "task.toml").write_text('columns = { text = "body" }'),
        "no column 'body'",
    ),
    "unknown key": (
        lambda f: (f / "task.toml").write_text('metrik = "f1"'),
        "`metrik` is no setting",
    ),
    "metric of another kind": (
        lambda f: (f / "task.toml").write_text('metric = "pearson"'),
        "train.jsonl:1: expected a finite number as label, found 'fruit'",
    ),
    "one class": (
        lambda f: write_split(f, "train", [r for r in examples(20) if r["label"] == "fruit"]),
        "expected at least two",
    ),
    "two files for a split": (
        lambda f: (f / "dev.csv").write_text("text,label\na,fruit\n"),
        "dev.csv",
    ),
    "missing corpus": (
        lambda f: (f / "task.toml").write_text('[external]\nin-domain = "no.txt"\n'),
        "no.txt",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_task(case, task, tmp_path):
    spoil, said = SPOILT[case]
    spoil(task)
    assert said in refused(tmp_path, "--task", "boxes", "--out", "out", *flags())


def test_a_class_with_one_example_in_a_single_file(task, tmp_path):
    rows = [*examples(20), {"text": "A cup of glass.", "label": "glass"}]
    write_split(tmp_path, "all", rows)
    said = refused(tmp_path, "--task", "all.jsonl", "--out", "out", *flags())
    assert "glass (1)" in said


def test_a_class_with_one_example_in_train_is_learnt(task, tmp_path):
    write_split(task, "train", [*examples(20), {"text": "A cup of glass.", "label": "glass"}])
    arguments = ["run", "--task", "boxes", "--out", "out", *flags(max_steps=1)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr


def test_a_space_without_a_legal_objective(task, tmp_path):
    space = tmp_path / "none.toml"
    space.write_text(
        '[[block]]\ndata = ["task"]\ntransform = ["no-op"]\n'
        'representation = ["left-to-right"]\noutput = ["end-task"]\n',
        "utf-8",
    )
    said = refused(tmp_path, "--task", "boxes", "--out", "out", *flags(), "--space", str(space))
    assert "end-task needs representation:whole-sequence" in said


def test_a_space_whose_corpus_is_missing(task, tmp_path):
    said = refused(tmp_path, "--task", "boxes", "--out", "out", *flags(), "--space", "dapt")
    assert "in-domain" in said


def test_an_empty_line_in_a_corpus_separates_and_is_no_text(task, tmp_path):
    corpus = "".join(f"{row['text']}\n\n" for row in examples(30, 200))
    (tmp_path / "corpus.txt").write_text(corpus, "utf-8")
    given = ["--external", "in-domain=corpus.txt", "--space", "dapt", "--out", "out"]
    done = CliRunner().invoke(main, ["run", "--task", "boxes", *flags(max_steps=1), *given])
    assert done.exit_code == 0, done.stderr


def test_a_corpus_without_any_text(task, tmp_path):
    (tmp_path / "corpus.txt").write_text("\n\n  \n", "utf-8")
    given = ["--external", "in-domain=corpus.txt", "--space", "dapt"]
    said = refused(tmp_path, "--task", "boxes", "--out", "out", *flags(), *given)
    assert "corpus.txt" in said


def test_an_occupied_directory(task, tmp_path):
    arguments = ["--task", "boxes", "--out", "out", *flags(max_steps=1)]
    assert CliRunner().invoke(main, ["run", *arguments]).exit_code == 0
    said = refused(tmp_path, *arguments)
    assert "--resume" in said
    assert "--out" in said
    assert "is not an empty folder" in refused(
        tmp_path, "--task", "boxes", "--out", "boxes", *flags()
    )
    (tmp_path / "file").write_text("mine", "utf-8")
    assert "file" in refused(tmp_path, "--task", "boxes", "--out", "file", *flags())


def test_a_damaged_configuration_does_not_resume(task, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.toml").write_text("task = [", "utf-8")
    assert "config.toml is not valid TOML" in refused(tmp_path, "--resume", "--out", "out")


def _process(folder, *plugins):
    places = os.pathsep.join(str(place) for place in plugins)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "aang_cli",
            "run",
            "--task",
            "boxes",
            "--out",
            "out",
            *flags(max_steps=1),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
    )


def test_two_plugins_of_one_name(task, tmp_path):
    for number in (1, 2):
        module = f"hooks_{number}"
        source = PLUGIN.format(name=f"turn-{number}", module=module)
        write_distribution(
            tmp_path / f"p{number}", f"dist-{number}", "1.0", {"turn": module}, **{module: source}
        )
    done = _process(tmp_path, tmp_path / "p1", tmp_path / "p2")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: the plugin name 'turn' is claimed by dist-1 1.0 and dist-2 1.0; uninstall one of them\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_plugin_that_fails_to_import_is_named_and_stops_no_run_without_it(task, tmp_path):
    write_distribution(
        tmp_path / "p", "broken", "1.0", {"bad": "hooks_bad"}, hooks_bad="import nowhere_"
    )
    done = _process(tmp_path, tmp_path / "p")
    assert done.returncode == 0, done.stderr
    assert "plugin 'bad' (broken 1.0) failed to import: ModuleNotFoundError" in done.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["schema"] == 1
