"""``aang plugins new``: packages that pass their own tests as written, and names that are refused."""

import json
import os
import subprocess
import sys
import tomllib

import pytest
from _tasks import flags, write_task
from aang_cli.main import main
from aang_cli.plugins import FILES, KINDS, LONGEST_NAME, Scaffold
from click.testing import CliRunner

NAMES = {
    "data": "half",
    "transform": "a",  # the shortest name
    "representation": "near-window-of-thirty-letters0"[:LONGEST_NAME],  # the longest
    "output": "class",  # a word of Python
}
LEGAL = {"data": 16, "transform": 6, "representation": 4, "output": 16}


def invoke(*arguments):
    return CliRunner().invoke(main, ["plugins", "new", *map(str, arguments)])


def python(*arguments, site=None, cwd=None):
    path = {"PYTHONPATH": str(site)} if site else {}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """One package a stage, written by the command; by stage."""
    top = tmp_path_factory.mktemp("packages")
    for stage, name in NAMES.items():
        done = invoke(name, "--stage", stage, "--out", top / stage)
        assert done.exit_code == 0, done.output
    return {stage: top / stage for stage in NAMES}


@pytest.fixture(scope="module")
def site(packages, tmp_path_factory):
    """All four, built and installed into a folder."""
    target = tmp_path_factory.mktemp("site")
    python(
        *("pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--disable-pip-version-check", "--target", target, *packages.values()),
    )
    return target


def test_the_names_cover_every_stage_and_both_ends_of_the_lengths():
    assert list(NAMES) == list(KINDS)
    lengths = {len(name) for name in NAMES.values()}
    assert {1, LONGEST_NAME} <= lengths


def test_the_packages_pass_their_own_tests(packages, site):
    said = python(
        *("pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull),
        *(folder / "tests" for folder in packages.values()),
        site=site,
        cwd=site,
    )
    assert "passed" in said
    assert "skipped" not in said


def test_the_packages_pass_their_own_lint(packages):
    python("ruff", "check", "--no-cache", *packages.values())
    python("ruff", "format", "--check", "--no-cache", *packages.values())


def test_the_packages_pass_their_own_type_check(packages, site, root):
    places = [place for folder in packages.values() for place in (folder / "tests", *_code(folder))]
    python(
        *("mypy", "--config-file", packages["data"] / "pyproject.toml", "--explicit-package-bases"),
        *("--cache-dir", root / ".mypy_cache" / "packages", *places),  # what mypy knows of torch
        site=site,
        cwd=packages["data"],
    )


def _code(folder):
    return [path for path in folder.glob("aang_*") if path.is_dir()]


def test_the_primitives_compose_with_the_rest_and_with_each_other(site, tmp_path):
    task, out = write_task(tmp_path / "boxes"), tmp_path / "run"
    adding = [word for name in NAMES.values() for word in ("--with", name)]
    for stage, name in NAMES.items():
        given = ("list-objectives", "--space", "td", "--with", name, "--json")
        rows = json.loads(python("aang_cli", *given, site=site))
        assert sum(row[stage] == name for row in rows) == LEGAL[stage]
    said = python(
        *("aang_cli", "run", "--task", task, "--out", out, "--json", *adding, *flags()), site=site
    )
    report = json.loads(said)
    for stage, name in NAMES.items():
        assert report["weights"]["stages"][stage][name] > 0
        assert report["plugins"][name] == f"aang-{name} 0.1.0"


def test_every_template_has_a_place_and_every_place_a_template(root):
    folder = root / "cli" / "aang_cli" / "templates"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    sources = {
        source.replace("$stage", stage) + ".in" for source in FILES.values() for stage in KINDS
    }
    assert there == sources


@pytest.mark.parametrize("stage", KINDS)
def test_the_files_have_no_blanks_left_and_parse(stage):
    made = Scaffold("two-words", stage).files()
    assert tomllib.loads(made["pyproject.toml"])["project"]["name"] == "aang-two-words"
    assert "aang_two_words/hooks.py" in made
    for path, text in made.items():
        left = text.replace("${{ matrix.python }}", "")
        assert "$" not in path + left
        if path.endswith(".py"):
            compile(text, path, "exec")


def test_json_says_what_was_written(tmp_path):
    done = invoke("two-words", "--out", tmp_path / "it", "--json")
    said = json.loads(done.stdout)
    assert said["distribution"] == "aang-two-words"
    there = {p.relative_to(tmp_path / "it").as_posix() for p in (tmp_path / "it").rglob("*")}
    assert set(said["files"]) <= there
    assert os.listdir(tmp_path) == ["it"]  # no draft is left behind


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Shuffle", "kebab-case"),
        ("two_words", "kebab-case"),
        ("7th", "kebab-case"),
        ("../up", "kebab-case"),
        ("", "kebab-case"),
        ("aang-shuffle", "give 'shuffle'"),
        ("a" * (LONGEST_NAME + 1), "at most 30 characters (got 31)"),
        ("mask", "transform primitive 'mask' of aang"),
        ("text", "the plugin 'text' (aang"),
        ("core", "'aang_core' can be imported already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, reason, tmp_path):
    done = invoke(name, "--out", tmp_path / "it")
    assert done.exit_code == 1
    assert reason in done.output
    assert not (tmp_path / "it").exists()


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    done = invoke("text", "--out", tmp_path)
    assert done.exit_code == 1
    assert "3 faults" in done.output
    assert f"{tmp_path} exists" in done.output


@pytest.mark.parametrize("there", ["folder", "file", "broken link"])
def test_what_exists_is_never_written_to(there, tmp_path):
    out = tmp_path / "it"
    if there == "folder":
        out.mkdir()
    elif there == "file":
        out.write_text("mine", encoding="utf-8")
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = sorted(os.listdir(tmp_path))
    done = invoke("two-words", "--out", out)
    assert done.exit_code == 1
    assert f"{out} exists" in done.output
    assert sorted(os.listdir(tmp_path)) == before


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = invoke("two-words", "--out", tmp_path / "file" / "it")
    assert done.exit_code == 1
    assert "cannot be written" in done.output


def test_the_unknown_stage_is_wrong_usage():
    assert invoke("two-words", "--stage", "loss").exit_code == 2
