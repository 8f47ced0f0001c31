"""Every class of bad input at the commands that meet it: one clear message, exit 1 or 2, nothing written or changed."""

import json
import os
from pathlib import Path

import pytest
from _children import contents
from _hostile import TABLE
from _plugins import importable, write_distribution
from _tasks import examples, settings, write_split, write_task
from aang_cli.main import main
from aang_cli.render import visible
from click.testing import CliRunner

import aang_core as aang
from aang_core.errors import AangError

CASES = [(kind, name) for kind, rows in TABLE.items() for name in rows]


def state(folder: Path) -> dict[str, object]:
    """Everything under a folder: what files hold, where links lead, which folders there are."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found


def refused(work, arguments):
    """What a command says in a folder `work` when it is refused; everything around is as it was."""
    before = state(work.parent)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code in (1, 2), (done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.stdout == ""
    assert done.stderr.count("Error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr == visible(done.stderr)
    assert state(work.parent) == before
    return done.stderr


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, in another one that must not change either."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_bad_input_is_refused_in_words(kind, name, work):
    prepare, arguments, said = TABLE[kind][name]
    prepare(work)
    assert said in refused(work, arguments)


def test_the_table_is_as_long_as_the_documentation_says(root):
    assert f"{len(CASES) + len(PLUGINS)} bad inputs" in (root / "docs" / "faults.md").read_text(
        "utf-8"
    )


HOOK = '''
"""A plugin."""
from aang_core.registry.hookspecs import hookimpl
from aang_core.registry.records import Transform

@hookimpl
def aang_transforms():
    {body}
'''
PLUGINS = {
    "leaves while it is imported": ("raise SystemExit(3)", "SystemExit: 3", False),
    "is no Python": ("def (", "SyntaxError", False),
    "is not UTF-8 inside": ("x = '\udcff'", "failed to import", False),
    "recurses for ever": ("def f(): f()\nf()", "RecursionError", False),
    "returns nothing": (HOOK.format(body="return None"), "returned None", True),
    "returns a text": (HOOK.format(body="return 'abc'"), "expected records of the class", True),
    "raises": (HOOK.format(body="raise KeyError('x')"), "failed: KeyError: 'x'", True),
    "returns a number": (HOOK.format(body="return 3"), "failed: TypeError", True),
    "names a primitive like HTML": (
        HOOK.format(body="return [Transform(name='<b>', summary='', factory='a:b')]"),
        "'<b>'",
        True,
    ),
    "takes a name that is taken": (
        HOOK.format(body="return [Transform(name='mask', summary='', factory='a:b')]"),
        "the primitive name 'mask' is claimed by",
        True,
    ),
}


@pytest.mark.parametrize("case", PLUGINS)
def test_a_plugin_that(case, work, monkeypatch):
    """One that cannot be imported is remarked upon; one whose records are wrong is an error. Both are named."""
    source, said, fatal = PLUGINS[case]
    place = work / "site"
    write_distribution(place, "evil-dist", "6.6", {"evil": "evil_hooks"})
    (place / "evil_hooks.py").write_bytes(source.encode("utf-8", "surrogateescape"))
    importable(place, monkeypatch)
    done = CliRunner().invoke(main, ["list-spaces"])
    assert done.exit_code == (1 if fatal else 0), (done.output, done.exception)
    assert "'evil' (evil-dist 6.6)" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


NAME = '<img src=x onerror="alert(1)">\x1b[31m'


def test_hostile_names_in_data_that_is_used_stay_data(work, pages):
    """Labels, texts and the task's name as HTML, escape codes and paths: the run is like any other."""
    task = work / "boxes"
    write_task(task)
    for split in ("train", "dev", "test"):
        rows = [json.loads(each) for each in (task / f"{split}.jsonl").read_text().splitlines()]
        for row in rows:
            row["text"] += f" {NAME}"
            row["label"] += NAME
        write_split(task, split, rows)
    toml = 'name = "../../../evil\\n<script>alert(2)</script>"\n'
    (task / "task.toml").write_text(toml, "utf-8")
    before = state(work.parent)
    flags = [
        *("--model", "scratch:tiny", "--method", "finetune", "--max-steps", "1"),
        *("--set", "training.final_epochs=0"),
    ]
    done = CliRunner().invoke(main, ["run", "--task", "boxes", *flags])
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stderr == visible(done.stderr)
    assert done.stdout == visible(done.stdout)
    after = state(work.parent)
    made = after.keys() - before.keys()
    assert {name: after[name] for name in before} == before
    assert all(name == "work/runs" or name.startswith("work/runs/") for name in made)
    (page,) = work.glob("runs/*/report.html")
    html = page.read_text("utf-8")
    assert "<img src=x" not in html
    assert "<script>alert" not in html


def test_data_that_changes_under_way_changes_nothing(tmp_path):
    """A task's files are read once; what happens to them while the run trains is not seen."""
    chosen = settings(method="finetune")
    whole = write_task(tmp_path / "a" / "boxes")
    aang.run(task=str(whole), out=tmp_path / "whole", **chosen)
    task = write_task(tmp_path / "b" / "boxes")

    class Vandal(aang.Callback):
        def on_step(self, session, record, progress):
            write_split(task, "train", examples(3, 500))
            (task / "dev.jsonl").unlink(missing_ok=True)

    aang.run(task=str(task), out=tmp_path / "out", callbacks=Vandal(), **chosen)
    assert contents(tmp_path / "out")[1] == contents(tmp_path / "whole")[1]


def test_a_run_directory_that_goes_away_under_way_is_said(tmp_path):
    task = write_task(tmp_path / "boxes")
    out = tmp_path / "out"

    class Vandal(aang.Callback):
        def on_step(self, session, record, progress):
            if out.exists():
                out.rename(tmp_path / "elsewhere")
                out.write_text("a file now", "utf-8")

    with pytest.raises(AangError, match="cannot write"):
        aang.run(task=str(task), out=out, callbacks=Vandal(), **settings(method="finetune"))
    assert out.read_text("utf-8") == "a file now"
