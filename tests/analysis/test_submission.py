"""Archives in GLUE's format: names, contents, which seed, and what makes none."""

import json
import zipfile

import pytest
from _runs import prediction_lines, write_run
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.analysis.submission import file_name, sheets, write_submission
from aang_core.errors import RunError
from aang_core.rundir.finished import read_runs


def finished(path, task, right=None, **changed):
    return write_run(path, right or {0: 20}, changed={"task": task, **changed})


def made(paths, out, seed=None):
    write_submission(sheets(read_runs(paths), seed), out)
    with zipfile.ZipFile(out) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("glue-rte", "RTE.tsv"),
        ("MRPC", "MRPC.tsv"),
        ("glue-sst2", "SST-2.tsv"),
        ("stsb", "STS-B.tsv"),
        ("glue-mnli-mm", "MNLI-mm.tsv"),
        ("acl-arc", "acl-arc.tsv"),
    ],
)
def test_files_are_called_what_the_benchmark_calls_them(task, name):
    assert file_name(task) == name


def test_an_archive_holds_the_tasks_that_were_predicted_and_no_others(tmp_path):
    runs = [finished(tmp_path / "a", "glue-rte"), finished(tmp_path / "b", "glue-mrpc", {0: 31})]
    files = made(runs, tmp_path / "deep" / "out.zip")
    assert list(files) == ["RTE.tsv", "MRPC.tsv"]
    lines = files["MRPC.tsv"].splitlines()
    assert lines[0] == "index\tprediction"
    assert lines[1:] == [f"{n}\t{row['label']}" for n, row in enumerate(prediction_lines(31))]


def test_the_same_archive_byte_for_byte(tmp_path):
    run = finished(tmp_path / "a", "glue-rte")
    made([run], tmp_path / "1.zip")
    made([run], tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_dev_chooses_the_seed_and_a_flag_overrides_it(tmp_path):
    path = finished(tmp_path / "a", "glue-rte", {0: 10, 1: 20, 2: 30})
    report = json.loads((path / "report.json").read_text("utf-8"))
    for seed, dev in zip(report["seeds"], (0.4, 0.6, 0.5), strict=True):
        seed["dev"] = {"accuracy": dev, "f1": 0.9 - dev}
    (path / "report.json").write_text(json.dumps(report), "utf-8")
    assert [sheet.seed for sheet in sheets(read_runs([path]))] == [1]
    third = made([path], tmp_path / "out.zip", seed=2)["RTE.tsv"].splitlines()
    assert third[1:] == [f"{n}\t{row['label']}" for n, row in enumerate(prediction_lines(30))]


def test_a_regression_is_predicted_by_its_number(tmp_path):
    path = finished(tmp_path / "a", "stsb")
    (path / "predictions.jsonl").write_text('{"row": 0, "value": 3.14159, "inputs": {}}\n', "utf-8")
    assert made([path], tmp_path / "out.zip") == {"STS-B.tsv": "index\tprediction\n0\t3.142\n"}


def test_runs_that_make_no_submission_are_all_named(tmp_path):
    first, again = finished(tmp_path / "a", "rte"), finished(tmp_path / "b", "glue-rte")
    silent, several = finished(tmp_path / "c", "mrpc"), finished(tmp_path / "d", "tags")
    (silent / "predictions.jsonl").unlink()
    (several / "predictions.jsonl").write_text('{"row": 0, "labels": ["x"]}\n', "utf-8")
    with pytest.raises(RunError) as fault:
        sheets(read_runs([first, again, silent, several]))
    assert "3 faults" in str(fault.value)
    for said in ("RTE.tsv would come from", "predicts nothing", "predictions.jsonl:1 holds no"):
        assert said in str(fault.value)
    with pytest.raises(RunError, match="has no seed 7; it has 0"):
        sheets(read_runs([first]), seed=7)


def test_the_command_packs_once_and_says_what_it_packed(tmp_path):
    run, out = finished(tmp_path / "a", "glue-rte"), tmp_path / "out.zip"
    done = CliRunner().invoke(main, ["submission", str(run), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert (row["file"], row["rows"], row["seed"]) == ("RTE.tsv", 40, 0)
    again = CliRunner().invoke(main, ["submission", str(run), "--out", str(out)])
    assert again.exit_code == 1
    assert "exists already" in again.stderr
