"""``aang show``, the warnings of the listing and of a run, and bad input through the command line."""

import json
from pathlib import Path

import pytest
from aang_cli.main import main
from click.testing import CliRunner

import aang_core

ROOT = Path(__file__).resolve().parents[2]
CATS = str(ROOT / "docs" / "examples" / "cats")
TINY = ("--task", CATS, "--model", "scratch:tiny")


def aang(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_an_example_walks_through_the_four_stages():
    done = aang("show", "task/bert-op/left-to-right/denoise", *TINY, "--seed", 3)
    assert done.exit_code == 0, done.output
    text = done.stdout
    stages = (
        "1 data task",
        "2 transform bert-op",
        "3 representation left-to-right",
        "4 output denoise",
    )
    places = [text.index(stage) for stage in stages]
    assert places == sorted(places)
    assert "→[MASK]" in text
    assert " ██· " in text
    assert "the loss reads the states of" in text
    assert "\x1b" not in text
    assert not any(line.endswith(" ") for line in text.splitlines())


@pytest.mark.parametrize("data", ["unlabelled", "pseudo-labelled"])
def test_rows_whose_labels_are_set_aside_can_be_shown(data):
    output = "agree" if data == "unlabelled" else "end-task"
    objective = f"{data}/no-op/bidirectional/{output}"
    refused = aang("show", objective, *TINY)
    assert "needs task:unlabelled" in refused.output
    done = aang("show", objective, *TINY, "--set", "train_rows=6")
    assert done.exit_code == 0, done.output
    assert f"1 data {data}" in done.stdout


def test_a_long_row_is_cropped_with_a_note(tmp_path):
    rows = [{"text": f"{'long ' * 40}{i}", "label": str(i % 2)} for i in range(8)]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    task = ("--task", tmp_path, "--model", "scratch:tiny")
    text = aang("show", "task/mask/bidirectional/real-synthetic", *task).stdout
    assert "the first 24 of" in text
    assert text.count("█" * 48) == 24
    assert "more targets" in text


def test_json_has_everything_and_nothing_else_is_on_stdout():
    done = aang("show", "task/no-op/permuted/denoise", *TINY, "--rows", 2, "--json")
    walk = json.loads(done.stdout)
    assert set(walk) == {"objective", "layout", "rows", "warnings"}
    assert len(walk["rows"]) == 2
    assert walk["warnings"][0]["kind"] == "target-visible"
    assert all(len(row["allowed"]) == len(row["shown"]) for row in walk["rows"])


def test_data_that_have_to_be_made_first_are_told_of(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    objective = "neural-lm/replace/bidirectional/real-synthetic"
    few = ("--set", "primitives.neural-lm.fit_steps=2")
    done = aang("show", objective, *TINY, *few, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["objective"] == objective
    assert "neural-lm: fitting a denoise head …" in done.stderr
    assert "neural-lm: sampling proposals …" in done.stderr
    assert "neural-lm" not in aang("show", objective, *TINY, *few).stderr  # kept


def test_options_of_primitives_take_effect():
    half = ("--set", "primitives.mask.rate=0.5")
    done = aang("show", "task/mask/bidirectional/denoise", *TINY, *half, "--json")
    (row,) = json.loads(done.stdout)["rows"]
    assert sum(row["selected"]) == round(0.5 * sum(not each for each in row["special"]))


def test_a_listing_with_a_task_warns_and_one_without_stays_light():
    rows = json.loads(aang("list-objectives", "--space", "td", "--json").stdout)
    assert all(row["warnings"] == [] for row in rows)
    rows = json.loads(aang("list-objectives", "--space", "td", *TINY, "--json").stdout)
    warned = {row["id"] for row in rows if row["warnings"]}
    assert warned == {
        row["id"] for row in rows if "/no-op/" in row["id"] and "denoise" in row["id"]
    }
    assert len(warned) == 4


def test_a_listing_survives_what_a_run_would_not(tmp_path):
    corpus = tmp_path / "one.txt"
    corpus.write_text("Only one document.\n", "utf-8")
    space = _space(tmp_path, data="in-domain", transform="no-op", output="tf-idf")
    done = aang(
        "list-objectives", "--space", space, *TINY, "--external", f"in-domain={corpus}", "--json"
    )
    assert done.exit_code == 0, done.output
    assert [row["warnings"] for row in json.loads(done.stdout)] == [[]]
    assert "at least two documents" in done.stderr


def _space(folder, data="task", transform="no-op", output="denoise"):
    path = folder / "space.toml"
    path.write_text(
        f'[[block]]\ndata = ["{data}"]\ntransform = ["{transform}"]\n'
        f'representation = ["bidirectional"]\noutput = ["{output}"]\n',
        "utf-8",
    )
    return path


def test_ten_of_the_objectives_train_and_the_report_keeps_the_warning(tmp_path):
    report = aang_core.run(
        task=CATS,
        model="scratch:tiny",
        space=str(ROOT / "docs" / "examples" / "ten.toml"),
        out=tmp_path / "ten",
        with_=["no-op"],
        training={"max_steps": 5, "final_epochs": 0},
    )
    assert report.seeds[0].steps == 5
    (line,) = [text for text in report.seeds[0].remarks if "objectives show their target" in text]
    assert "\n" not in line
    assert f"of {report.seeds[0].objectives} objectives" in line


def test_the_space_of_ten_has_ten():
    space = ROOT / "docs" / "examples" / "ten.toml"
    assert len(json.loads(aang("list-objectives", "--space", space, "--json").stdout)) == 10


@pytest.fixture
def bad(tmp_path):
    """A task with a tag too few, and a corpus of one document."""
    rows = [{"text": f"word {i}", "label": "ab"[i % 2], "tags": ["x", "y"]} for i in range(8)]
    broken = [*rows[:7], {**rows[7], "tags": ["x"]}]
    for split, found in (("train", broken), ("dev", rows), ("test", rows)):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, found)), "utf-8")
    (tmp_path / "one.txt").write_text("Only one document.\n", "utf-8")
    return tmp_path


def _refused(bad, *arguments, **stages):
    out = bad / "run"
    task = ("--task", bad, "--model", "scratch:tiny", "--max-steps", 1, "--out", out)
    done = aang("run", "--space", _space(bad, **stages), *task, *arguments)
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert not list(out.rglob("history.jsonl"))  # nothing was trained
    return done.stderr


def test_tags_of_another_length_than_the_words(bad):
    message = _refused(bad, output="token-labels")
    assert "1 " in message
    assert "2 words" in message


def test_a_corpus_of_one_document_for_tf_idf(bad):
    train = (bad / "train.jsonl").read_text("utf-8").replace('"tags": ["x"]', '"tags": ["x", "y"]')
    (bad / "train.jsonl").write_text(train, "utf-8")
    external = f"in-domain={bad / 'one.txt'}"
    message = _refused(bad, "--external", external, data="in-domain", output="tf-idf")
    assert "tf-idf: expected a corpus of at least two documents, found 1" in message


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('noise="cauchy"', "expected noise to be one of gaussian, uniform"),
        ("std=-1.0", "std over 0"),
        ("nosie=1", "nosie` is no setting; did you mean 'noise'?"),
    ],
)
def test_an_unknown_noise(setting, message):
    objective = "task/noise-embeddings/bidirectional/denoise"
    done = aang("show", objective, *TINY, "--set", f"primitives.noise-embeddings.{setting}")
    assert done.exit_code == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("external", "message"),
    [
        ("out-of-domain=no-such-file.txt", "no such file or folder"),
        ("out-of-domian=README.md", "did you mean 'out-of-domain'?"),
    ],
)
def test_an_unknown_corpus(external, message):
    objective = "out-of-domain/mask/bidirectional/denoise"
    done = aang("show", objective, *TINY, "--external", external)
    assert done.exit_code == 1, done.output
    assert message in done.stderr
