"""The rule of docs/weighting.md, installed as a stranger's plugin and run."""

from _pages import ROOT, blocks
from _plugins import importable, write_distribution
from _tasks import settings, write_task

import aang_core as aang

PAGE = ROOT / "docs" / "weighting.md"


def test_the_strangers_rule_works_in_less_than_thirty_lines(tmp_path, monkeypatch):
    (code,) = [block.body for block in blocks(PAGE) if block.language == "python"]
    assert len([line for line in code.splitlines() if line.strip()]) < 30
    site = tmp_path / "site"
    write_distribution(site, "aang-votes", "1.0", {"votes": "aang_votes"}, aang_votes=code)
    importable(site, monkeypatch)
    task = write_task(tmp_path / "boxes")
    chosen = settings(space="x+y+z", meta={"rule": "votes", "dev_gradient_every": 1})
    report = aang.run(
        task=str(task), out=tmp_path / "run", weightings={"votes": {"rate": 0.5}}, **chosen
    )
    assert report.plugins["votes"] == "aang-votes 1.0"
    weights = report.weights["objectives"].values()
    assert max(weights) > min(weights)


def test_every_rule_of_ours_is_on_the_page():
    from aang_weightings.hooks import aang_weightings

    text = PAGE.read_text("utf-8")
    for record in aang_weightings():
        assert f"| `{record.name}` |" in text
        assert all(f"`{option}`" in text for option in record.options)
