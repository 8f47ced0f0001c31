"""The tutorials and guides, followed to the letter, and the numbers of the concepts."""

import doctest
import sys
from pathlib import Path

import pytest
from _pages import ROOT, Workspace, blocks, files

DOCS = ROOT / "docs"
FOLLOWED = [DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]
PLUGIN = DOCS / "tutorial-plugin.md"


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """An empty folder to work in, and a place for packages; both forgotten afterwards."""
    folder, site = tmp_path / "work", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)
    yield Workspace(folder, site)
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "aang_shuffle":
            del sys.modules[name]


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda path: path.stem)
def test_what_a_page_tells_to_do_can_be_done(page, workspace):
    pytest.importorskip(
        "matplotlib", reason="the tutorial draws a report, for which plots are an extra"
    )
    workspace.follow(page)
    assert workspace.ran


@pytest.mark.parametrize("page", [*FOLLOWED, PLUGIN], ids=lambda path: path.stem)
def test_every_block_is_run_or_says_why_not(page):
    shells = [block for block in blocks(page) if block.language == "sh"]
    assert all(block.reason == "" or len(block.reason) > 10 for block in shells)
    written = page.read_text(encoding="utf-8").count("<!-- not run")
    assert written == sum(bool(block.reason) for block in shells)


def test_the_tutorial_builds_a_plugin_that_works(workspace):
    workspace.follow(PLUGIN)
    listed = workspace.run("aang list-objectives --space td --with shuffle --json")
    assert listed.count('"transform": "shuffle"') == 6
    report = (workspace.folder / "runs" / "shuffled" / "report.json").read_text(encoding="utf-8")
    assert '"shuffle": "aang-shuffle 0.1.0"' in report


def test_the_tutorial_builds_what_the_command_writes(workspace):
    workspace.run("aang plugins new shuffle --out written")
    written = Path("written")
    for path, text in files(PLUGIN).items():
        twin = written / Path(path).relative_to("aang-shuffle")
        assert twin.read_text(encoding="utf-8") == text, path
    built = {Path(path).relative_to("aang-shuffle").as_posix() for path in files(PLUGIN)}
    there = {p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file()}
    assert there - built == {"README.md", "LICENSE", ".gitignore", ".github/workflows/test.yml"}


def test_the_numbers_worked_through_by_hand_are_those_of_the_program():
    failed, tried = doctest.testfile(
        str(DOCS / "concepts.md"), module_relative=False, encoding="utf-8"
    )
    assert tried > 20
    assert not failed
