"""The listing commands: rows, tables, remarks, exit codes, and how little they load."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest
from _tasks import TOPICS, flags, write_task
from _teachers import save_classifier
from aang_cli.main import COMMANDS, main
from click.testing import CliRunner

from aang_core import __version__
from aang_core.errors import TaskError

ROW_KEYS = {
    "id",
    "data",
    "transform",
    "representation",
    "output",
    "legal",
    "reason",
    "needs",
    "named",
}
LISTINGS = ("list-objectives", "list-primitives", "list-spaces", "plugins")
HEAVY = ("torch", "datasets", "transformers", "sklearn", "pysbd", "numpy")


def _aang(*arguments):
    return CliRunner().invoke(main, arguments)


def _rows(*arguments):
    done = _aang(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(("space", "legal", "illegal"), [("td", 24, 8), ("td+ed", 40, 24)])
def test_objectives_have_the_paper_counts(space, legal, illegal):
    assert len(_rows("list-objectives", "--space", space)) == legal
    reasons = [row["reason"] for row in _rows("list-objectives", "--space", space, "--illegal")]
    assert len(reasons) == illegal
    assert all(reasons)


def test_the_default_space_is_td_ed():
    assert _rows("list-objectives") == _rows("list-objectives", "--space", "td+ed")


def test_rows_have_the_promised_keys_and_unique_ids():
    rows = _rows("list-objectives")
    assert all(set(row) >= ROW_KEYS for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)


def test_a_reason_names_both_sides():
    rows = {row["id"]: row for row in _rows("list-objectives", "--space", "td", "--illegal")}
    assert rows["task/mask/left-to-right/end-task"]["reason"] == (
        "end-task needs representation:whole-sequence; left-to-right does not provide it"
    )


def test_the_remark_goes_to_stderr():
    done = _aang("list-objectives", "--space", "td", "--json")
    expected = "24 of 32 combinations are legal; --illegal shows the other 8 and why\n"
    assert done.stderr == expected


def test_a_table_shows_every_id_in_full():
    table = _aang("list-objectives", "--space", "td").stdout
    assert all(row["id"] in table for row in _rows("list-objectives", "--space", "td"))


def test_the_order_and_the_bytes_do_not_vary():
    first = _aang("list-objectives", "--json").stdout
    assert first == _aang("list-objectives", "--json").stdout


def test_primitives_say_where_they_come_from():
    rows = _rows("list-primitives")
    mask = next(row for row in rows if row["name"] == "mask")
    assert mask["stage"] == "transform"
    assert (mask["plugin"], mask["distribution"], mask["version"]) == ("text", "aang", __version__)
    assert {row["stage"] for row in _rows("list-primitives", "--stage", "output")} == {"output"}


def test_spaces_say_how_many_objectives_they_have():
    rows = {row["name"]: row for row in _rows("list-spaces")}
    assert (rows["td"]["legal"], rows["td"]["combinations"]) == (24, 32)
    assert rows["x+y+z"]["legal"] == 3
    assert not any(row["error"] for row in rows.values())


def test_plugins_list_the_built_in_one():
    (row,) = [row for row in _rows("plugins") if row["name"] == "text"]
    assert (row["distribution"], row["version"], row["error"]) == ("aang", __version__, "")
    assert "mask" in row["primitives"]


def test_a_space_file_works_like_a_name(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[block]]\ndata = ["task"]\ntransform = ["mask"]\n'
        'representation = ["bidirectional", "left-to-right"]\noutput = ["denoise", "end-task"]\n',
        "utf-8",
    )
    assert len(_rows("list-objectives", "--space", str(path))) == 3
    assert len(_rows("list-objectives", "--space", str(path), "--with", "no-op")) == 6


def test_a_task_settles_what_its_data_provides(tmp_path):
    lines = [f'{{"text": "text {i} of {c}", "label": "{c}"}}' for i in range(6) for c in "ab"]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")
    task = ("--task", str(tmp_path))
    assert len(_rows("list-objectives", "--space", "td", *task)) == 24
    done = _aang("list-objectives", "--space", "td+ed", *task)
    assert done.exit_code == 1
    assert "needs the data source 'in-domain'" in done.stderr
    assert "take a space without it" in done.stderr
    corpus = tmp_path / "texts.txt"
    corpus.write_text("One text.\nAnother one.\n", "utf-8")
    external = ("--external", f"in-domain={corpus}")
    assert len(_rows("list-objectives", "--space", "td+ed", *task, *external)) == 40


def test_a_teacher_settles_the_objectives_that_learn_from_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_task(tmp_path / "boxes")
    task = ("--space", "distil", "--task", str(folder), "--model", "scratch:tiny")
    alone = _aang("list-objectives", *task, "--json")
    assert all("run:teacher-model" in row["needs"] for row in json.loads(alone.stdout))
    assert "not known" in alone.stderr
    assert "give --teacher-model" in alone.stderr
    teacher = save_classifier(tmp_path / "teacher", sorted(TOPICS))
    taught = _aang("list-objectives", *task, "--teacher-model", str(teacher), "--json")
    rows = json.loads(taught.stdout)
    assert [row["output"] for row in rows] == ["distil", "distil"]
    assert not any("run:teacher-model" in row["needs"] for row in rows)
    assert "not known" not in taught.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("list-objectives", "--space", "tded"), 1, "unknown space 'tded'; did you mean 'td+ed'?"),
        (("list-objectives", "--with", "maks"), 1, "unknown primitive 'maks'; did you mean 'mask'"),
        (("list-objectives", "--task", "no-such-task"), 1, "no-such-task"),
        (("list-objectives", "--plugins", "txt"), 1, "not installed; did you mean 'text'?"),
        (("list-objectives", "--external", "a=b"), 2, "--external needs --task"),
        (("list-objectives", "--teacher-model", "a"), 2, "--teacher-model needs --task"),
        (("list-objectives", "--task", "t", "--external", "a"), 2, "expected NAME=FILE"),
        (("list-objectives", "--bogus"), 2, "No such option"),
        (("list-primitives", "--stage", "loss"), 2, "Invalid value"),
        (("no-such-command",), 2, "No such command"),
    ],
)
def test_errors_are_one_message_with_the_right_exit_code(arguments, code, message):
    done = _aang(*arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_a_space_whose_every_objective_is_illegal_is_an_error(tmp_path):
    path = tmp_path / "none.toml"
    path.write_text(
        '[[block]]\ndata = ["task"]\ntransform = ["mask"]\n'
        'representation = ["left-to-right"]\noutput = ["end-task"]\n',
        "utf-8",
    )
    done = _aang("list-objectives", "--space", str(path))
    assert done.exit_code == 1
    assert "has no legal objective among its 1" in done.stderr
    assert len(_rows("list-objectives", "--space", str(path), "--illegal")) == 1


def test_errors_that_are_bugs_keep_their_traceback(monkeypatch):
    monkeypatch.setitem(COMMANDS, "broken", "aang_cli.no_such_module:command")
    with pytest.raises(ModuleNotFoundError):
        CliRunner().invoke(main, ["broken"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [(TaskError("mend me"), 1, "Error: mend me"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_the_boundary_turns_errors_into_exit_codes(error, code, message):
    from aang_cli.main import RootGroup

    group = RootGroup("group", lazy={})

    @group.command()
    def stop():
        raise error

    done = CliRunner().invoke(group, ["stop"])
    assert (done.exit_code, done.stderr.strip()) == (code, message)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_help_has_an_example(command):
    done = _aang(command, "--help")
    assert done.exit_code == 0
    assert "Example:" in done.stdout
    assert f"aang {command}" in done.stdout


def test_the_root_help_lists_every_command_with_a_whole_sentence():
    text = _aang("--help").stdout
    assert "..." not in text.partition("Commands:")[2]
    assert "Example:" in text
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), *((name,) for name in LISTINGS)], ids=" ".join
)
def test_listing_loads_nothing_heavy_and_takes_less_than_a_second(arguments):
    script = (
        "import sys\n"
        "from aang_cli.main import main\n"
        f"main({list(arguments)!r}, standalone_mode=False)\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'loaded {found}' if found else 0)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_a_run_loads_no_library_that_it_does_not_need(tmp_path):
    """Each takes half a second and more: scikit-learn and scipy.stats, and what only extras need."""
    arguments = ["run", *flags(2), "--task", str(write_task(tmp_path / "boxes")), "--quiet"]
    arguments += [
        "--set",
        "heads.finish=probe",
        "--against",
        "none",
        "--out",
        str(tmp_path / "run"),
    ]
    script = (
        "import sys\n"
        "from aang_cli.main import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "found = {'sklearn', 'scipy.stats', 'joblib', 'ray', 'peft'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {found}' if found else 0)\n"
    )
    environment = {**os.environ, "AANG_PAGE": "none"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "aang_cli", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "AANG_PLUGINS": ""},
    )
    assert done.stdout.strip() == f"aang, version {__version__}"
