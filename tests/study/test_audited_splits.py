"""A run's audit is of the splits that its seeds train on, not of those that ``--split-anew`` has replaced."""

import json

import pytest

import aang_core
from aang_core.analysis.page.story import read_story
from aang_core.analysis.page.theory_estimates import setting_of
from aang_core.config.settings import RunConfig
from aang_core.data.audit import audit_draws, audit_task, findings
from aang_core.registry import load_registry
from aang_core.rundir.finished import read_runs
from aang_core.train.resolve import resolve, seed_task

SETTINGS = {
    "model": "scratch:tiny",
    "space": "td",
    "split_anew": [0.2, 0.2],
    "seeds": [0, 1],
    "training": {
        "max_steps": 8,
        "eval_every": 4,
        "final_epochs": 0,
        "max_length": 12,
        "end_task_rows": 4,
        "auxiliary_rows": 8,
    },
}


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """60 texts; half of test stands in train, which holds repeats as well."""
    folder = tmp_path_factory.mktemp("leaking")
    rows = [
        {
            "text": f"of all these many texts the words are the same but for {word} {n}",
            "label": "ab"[n % 2],
        }
        for n, word in enumerate("abcdef" * 10)
    ]
    splits = {"train": rows[:40] + rows[:10], "dev": rows[40:50], "test": rows[50:] + rows[:10]}
    for split, own in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, own)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(leaking, tmp_path_factory, pages):
    out = tmp_path_factory.mktemp("runs") / "anew"
    aang_core.run(task=str(leaking), out=out, **SETTINGS)
    return out


def test_a_clean_draw_raises_no_alarm(leaking, run):
    report = json.loads((run / "report.json").read_text("utf-8"))
    audit = report["audit"]
    assert audit["in_train"] == {"dev": 0, "test": 0}
    assert audit["duplicates"] == {"train": 0, "dev": 0, "test": 0}
    assert audit["splits"] == {"train": 36, "dev": 12, "test": 12}
    assert audit["draws"] == 2
    assert not any("stand in train" in finding for finding in findings(audit))
    page = (run / "report.html").read_text("utf-8")
    assert "examples stand in train" not in page


def test_the_bound_counts_the_rows_that_a_seed_trains_on(run):
    [finished] = read_runs([run])
    assert setting_of(read_story(finished)).end_task_rows == 36


def test_the_worst_draw_speaks_for_all(leaking):
    resolved = resolve(RunConfig.from_mapping({**SETTINGS, "task": str(leaking)}), load_registry())
    draws = [seed_task(resolved, seed) for seed in (0, 1, 2)]
    single = [audit_task(task, thorough=False) for task in draws]
    found = audit_draws(draws)
    assert found["near"] == {
        split: max(each["near"][split] for each in single) for split in ("dev", "test")
    }
    assert found["fingerprint"] == single[0]["fingerprint"]
    assert found["near"]["dev"], "the texts were made alike"
    assert any("(in the worst of 3 draws)" in finding for finding in findings(found))


def test_splits_that_no_seed_uses_are_not_remarked_upon(tmp_path):
    path = tmp_path / "all.csv"
    lines = [f"text number {n},{'ab'[n % 2]}" for n in range(60)]
    path.write_text("text,label\n" + "\n".join(lines), encoding="utf-8")
    config = RunConfig.from_mapping({**SETTINGS, "task": str(path)})
    assert not any("train was split" in r for r in resolve(config, load_registry()).task.remarks)
