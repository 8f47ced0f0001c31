"""A primitive that cannot do with the task makes its objectives illegal; the run goes on with the others."""

import json

import pytest
from _tasks import flags, write_task
from aang_cli.main import main
from click.testing import CliRunner

from aang_core.config.settings import RunConfig
from aang_core.errors import ConfigError, TaskError
from aang_core.registry.registry import load_registry
from aang_core.train.resolve import bind_objectives, load_backbone, resolve, seed_task

WHY = "denoise: cannot do with a task of the kind 'graph'"
ILLEGAL = "objectives are illegal with this task and left out: " + WHY


@pytest.fixture
def unfit(monkeypatch):
    """The output ``denoise`` refuses; says how often it was made."""
    made = []

    def refuse(self, binding):
        made.append(binding)
        raise TaskError(WHY)

    monkeypatch.setattr("aang_text.outputs.vocabulary.Denoise.__init__", refuse)
    return made


def bound(tmp_path, space, **told):
    task = write_task(tmp_path / "task")
    given = {"task": str(task), "model": "scratch:tiny", "space": space}
    resolved = resolve(RunConfig.from_mapping(given), load_registry())
    backbone = load_backbone(resolved, 0)
    return bind_objectives(resolved, seed_task(resolved, 0), backbone, 0, **told)


def test_its_objectives_are_left_out_with_the_reason(unfit, tmp_path):
    remarks, rejected = [], []
    objectives = bound(tmp_path, "td", remark=remarks.append, rejected=rejected.append)
    assert objectives
    assert not any(o.id.endswith("/denoise") for o in objectives)
    assert rejected
    assert all(v.objective.output == "denoise" and v.reason == WHY for v in rejected)
    assert [text for text in remarks if "left out" in text] == [f"{len(rejected)} {ILLEGAL}"]
    assert len(unfit) == 1  # made once, and remembered


def test_a_space_that_loses_all_says_why(unfit, tmp_path):
    with pytest.raises(ConfigError, match=WHY):
        bound(tmp_path, "tapt")


@pytest.mark.parametrize("extra", [["--dry-run"], []])
def test_a_run_says_it(unfit, extra, tmp_path):
    task = write_task(tmp_path / "task")
    command = ["run", "--task", str(task), "--out", str(tmp_path / "run"), *flags(2), *extra]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 0, answer.output
    assert ILLEGAL in " ".join(answer.output.split())


def test_the_list_of_objectives_says_it(unfit, tmp_path):
    task = str(write_task(tmp_path / "task"))
    command = ["list-objectives", "--space", "td", "--task", task, "--model", "scratch:tiny"]
    listed = {}
    for flag in ([], ["--illegal"]):
        answer = CliRunner().invoke(main, [*command, "--json", *flag])
        assert answer.exit_code == 0, answer.output
        listed[bool(flag)] = {row["id"]: row["reason"] for row in json.loads(answer.stdout)}
    assert not any(name.endswith("/denoise") for name in listed[False])
    reasons = [why for name, why in listed[True].items() if name.endswith("/denoise")]
    assert WHY in reasons
