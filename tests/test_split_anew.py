"""Splits drawn anew: pooled, without repeats, another way for each seed, the same for every method."""

from pathlib import Path

import pytest
from _tasks import write_split

from aang_core.errors import TaskError
from aang_core.split_anew import split_anew
from aang_core.task import Task, load_task


def task_of(folder: Path, rows: dict[str, list[tuple[str, str]]]) -> Task:
    for split, pairs in rows.items():
        write_split(folder, split, [{"text": t, "label": n} for t, n in pairs])
    return load_task(str(folder), reads=("text",), registered={}, external={})


@pytest.fixture
def task(tmp_path):
    pairs = [(f"text {i}", "ab"[i % 2]) for i in range(60)]
    return task_of(
        tmp_path,
        {
            "train": pairs[:40],
            "dev": [*pairs[40:50], ("TEXT  1", "b")],  # repeats a training text, same label
            "test": [*pairs[50:], ("text 2", "b")],  # contradicts one
        },
    )


def texts(task: Task, split: str) -> list[str]:
    return task.splits[split]["text"][:]


def test_pooled_without_repeats_or_contradictions(task):
    drawn = split_anew(task, 0.2, 0.3, seed=0)
    every = [text for split in ("train", "dev", "test") for text in texts(drawn, split)]
    assert sorted(every) == sorted(f"text {i}" for i in range(60) if i != 2)
    assert [len(drawn.splits[s]) for s in ("train", "dev", "test")] == [29, 12, 18]
    for split in drawn.splits.values():
        assert set(split["label"]) == {0, 1}


def test_seeds_differ_and_repeat(task):
    first, again, other = (split_anew(task, 0.2, 0.3, seed=s) for s in (0, 0, 1))
    assert texts(first, "test") == texts(again, "test")
    assert texts(first, "test") != texts(other, "test")


def test_unlabelled_test_rows_are_not_pooled(tmp_path):
    pairs = [(f"text {i}", "ab"[i % 2]) for i in range(20)]
    write_split(tmp_path, "test", [{"text": "an answer is wanted"}])
    task = task_of(tmp_path, {"train": pairs[:15], "dev": pairs[15:]})
    drawn = split_anew(task, 0.2, 0.2, seed=3)
    assert sum(len(split) for split in drawn.splits.values()) == 20


def test_too_few_texts(tmp_path):
    task = task_of(tmp_path, {"train": [("one", "a"), ("two", "b")], "dev": [("one", "a")]})
    with pytest.raises(TaskError, match="cannot be split anew: 2 distinct labelled texts leave no"):
        split_anew(task, 0.3, 0.3, seed=0)
