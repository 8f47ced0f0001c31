"""A job's directory: taken by one job alone, resumed with the same settings, freed where nothing came of it."""

import re

import pytest

from aang_core.errors import AangError, RunError
from aang_core.rundir.directory import JobDirectory, seed_directory, unused_directory

TEXT = 'lr = 0.5\n\n[meta]\nepochs = 3\nname = "a"\n'


def job(path, text=TEXT, **changed):
    return JobDirectory(**{"path": path, "what": "run", "mark": "job.toml", "text": text} | changed)


def failing(where, resume=False, made=()):
    """A job that makes these files, and then cannot go on."""
    with job(where).taken(resume):
        for name in made:
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_text("", "utf-8")
        raise AangError("a fault")


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_second_job_is_refused_while_the_first_is_at_work_and_resumes_after_it(tmp_path):
    out = tmp_path / "a" / "out"
    with job(out).taken(resume=False):
        with (
            pytest.raises(RunError, match="another process is at work on"),
            job(out).taken(resume=True),
        ):
            raise AssertionError("entered")
        with (
            pytest.raises(RunError, match="holds a run already; go on with --resume"),
            job(out).taken(resume=False),
        ):
            raise AssertionError("entered")
    with job(out).taken(resume=True):
        assert names(out) == ["job.toml"]


def test_of_two_that_begin_at_once_one_gets_there(tmp_path):
    """Both have found the directory empty; before, the second replaced the first one's settings and entered too."""
    first, second = job(tmp_path), job(tmp_path, text="lr = 0.7\n")
    first.check(resume=False)
    second.check(resume=False)
    first._write_mark()
    with pytest.raises(RunError, match="holds a run already"):
        second._write_mark()
    assert (tmp_path / "job.toml").read_text("utf-8") == TEXT


def test_what_a_killed_process_left_is_no_content_and_goes(tmp_path):
    (tmp_path / ".job.toml-77.partial").write_text("lr =", "utf-8")
    with job(tmp_path).taken(resume=False):
        assert names(tmp_path) == ["job.toml"]


@pytest.mark.parametrize("there_before", [True, False])
def test_a_job_that_nothing_came_of_leaves_nothing(there_before, tmp_path):
    out = tmp_path / "out"
    if there_before:
        out.mkdir()
    with pytest.raises(AangError, match="a fault"):
        failing(out, made=["data/inner/rows.txt", "notes.txt"])
    assert names(tmp_path) == (["out"] if there_before else [])
    assert not there_before or names(out) == []


@pytest.mark.parametrize("made", ["history.jsonl", "results.json", "prepared.safetensors"])
def test_a_job_that_came_to_something_keeps_it(made, tmp_path):
    out = tmp_path / "out"
    for resume in (False, True):
        with pytest.raises(AangError, match="a fault"):
            failing(out, resume, made=[f"seed-3/{made}"])
    assert names(out) == ["job.toml", "seed-3"]


def test_a_resumed_job_is_never_freed(tmp_path):
    with job(tmp_path).taken(resume=False):
        pass
    with pytest.raises(AangError, match="a fault"):
        failing(tmp_path, resume=True)
    assert names(tmp_path) == ["job.toml"]


def test_every_setting_that_differs_is_named(tmp_path):
    with job(tmp_path).taken(resume=False):
        pass
    same = '[meta]\nname = "a"\nepochs = 3\n'
    job(tmp_path, text=f"lr = 5e-1\n{same}").check(resume=True)  # the same, put otherwise
    with pytest.raises(RunError) as caught:
        job(tmp_path, text='top = 2\n[meta]\nname = "b"\nepochs = 3').check(resume=True)
    said = str(caught.value)
    assert "was begun with other settings (see its job.toml): " in said
    assert "top is 2 here and 'not set' there" in said
    assert "meta.name is 'b' here and 'a' there" in said
    assert "lr is 'not set' here and 0.5 there" in said
    assert "epochs" not in said


def test_what_holds_something_else_is_refused_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    said = re.escape("is no run's directory and is not an empty folder; choose another --out")
    with pytest.raises(RunError, match=said):
        job(tmp_path).check(resume=False)
    with pytest.raises(RunError, match="is not an empty folder"):
        job(tmp_path / "mine.txt").check(resume=False)
    with pytest.raises(RunError, match=r"holds no run to resume \(no job.toml\)"):
        job(tmp_path).check(resume=True)
    with (
        pytest.raises(RunError, match=r"cannot write .*; choose another --out"),
        job(tmp_path / "mine.txt" / "below").taken(resume=False),
    ):
        raise AssertionError("entered")
    assert names(tmp_path) == ["mine.txt"]


def test_a_directory_of_an_earlier_version_is_known_and_marked(tmp_path):
    (tmp_path / "results.json").write_text("{}", "utf-8")
    sweep = job(tmp_path, what="sweep", mark=".lock", text="", known=("results.json",))
    with pytest.raises(RunError, match="holds a sweep already"):
        sweep.check(resume=False)
    with sweep.taken(resume=sweep.is_begun):
        assert names(tmp_path) == [".lock", "results.json"]


def test_names_of_directories(tmp_path):
    assert seed_directory(tmp_path, [7], 7) == tmp_path
    assert seed_directory(tmp_path, [7, 8], 8) == tmp_path / "seed-8"
    base = unused_directory(str(tmp_path), ("../a task", "", "aang"))
    assert base == tmp_path / "a-task-aang"
    base.mkdir()
    assert unused_directory(str(tmp_path), ("../a task", "", "aang")).name == "a-task-aang-2"
