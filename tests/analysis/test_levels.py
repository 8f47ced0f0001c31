"""Classes whose names are paths: their levels are recognised, and scored one by one."""

import pytest
from _tasks import settings

import aang_core as aang
from aang_core.analysis.answer import score_of
from aang_core.analysis.levels import level_accuracies, said, separator_of
from aang_core.rundir.finished import read_run


@pytest.mark.parametrize(
    ("names", "separator"),
    [
        (["hardware/printer", "hardware/screen", "software/mail"], "/"),
        (["A > B > C", "A > B > D", "E > F > G"], " > "),
        (["a::x", "a::y", "b::x"], "::"),
        (["a/x", "b/x", "c/x"], ""),  # the first part says all
        (["a/x", "a/y"], ""),  # one first part says nothing
        (["a/x", "a/y", "b"], ""),  # not every name is a path
        (["entity", "number"], ""),
        (["and/or", "neither"], ""),
    ],
)
def test_levels_are_recognised(names, separator):
    assert separator_of(names) == separator


def test_accuracy_falls_from_level_to_level():
    answers = [("a/x/1", "a/x/1"), ("a/x/1", "a/x/2"), ("a/y/1", "a/x/1"), ("b/x/1", "a/x/1")]
    assert level_accuracies(answers, "/") == [0.75, 0.5, 0.25]
    assert "level 1: 0.7500, level 2: 0.5000, level 3: 0.2500" in said([answers, answers])
    assert said([]) == said([[]]) == ""


def test_a_run_says_them(tmp_path):
    labels = ["box/open", "box/shut", "bag/open"]
    for split, count in (("train", 30), ("dev", 12), ("test", 12)):
        rows = [
            f'"The {labels[i % 3]} thing, number {i} of {split}","{labels[i % 3]}"'
            for i in range(count)
        ]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]), "utf-8")
    made = settings(training={"max_steps": 2, "eval_every": 2, "final_epochs": 0})
    report = aang.run(task=str(tmp_path), method="finetune", out=tmp_path / "run", **made)
    found = score_of(read_run(report.directory))
    assert "accuracy down to each level of the classes (parted by '/'): level 1: " in found["said"]
    lines = found["said"].split("level 2: ")[1][:6]
    assert float(lines) == pytest.approx(report.seeds[0].test["accuracy"], abs=1e-4)
