"""Training rows drawn in proportion; splits drawn anew, without repeats, another way for each seed."""

from collections import Counter
from pathlib import Path

import pytest
from _tasks import write_split

from aang_core.data.splits import draw_dev_rows, draw_train_rows, draw_unlabelled_rows, split_anew
from aang_core.data.task import Task, load_task
from aang_core.errors import TaskError


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
    with pytest.raises(
        TaskError, match="cannot be split anew: 2 distinct labelled examples leave no"
    ):
        split_anew(task, 0.3, 0.3, seed=0)


def make_task(labels: list[int]) -> Task:
    from datasets import Dataset

    train = Dataset.from_dict({"text": [f"t{i}" for i in range(len(labels))], "label": labels})
    names = tuple(str(i) for i in range(max(labels) + 1))
    splits = {"train": train, "dev": train}
    return Task(name="toy", kind="class", metric="f1", splits=splits, label_names=names)


def test_training_rows_are_drawn_anew_for_each_seed_and_the_others_stay_as_texts():
    task = make_task([0] * 30 + [1] * 9 + [2])
    drawn = draw_train_rows(task, 8, seed=1)
    assert Counter(drawn.splits["train"]["label"]) == {0: 6, 1: 1, 2: 1}
    assert drawn.unlabelled.column_names == ["text"]
    kept, hidden = drawn.splits["train"]["text"][:], drawn.unlabelled["text"][:]
    assert sorted(kept + hidden) == sorted(task.splits["train"]["text"])
    assert draw_train_rows(task, 8, seed=1).splits["train"]["text"][:] == kept
    assert draw_train_rows(task, 8, seed=2).splits["train"]["text"][:] != kept
    assert len(draw_train_rows(drawn, 4, seed=1).unlabelled) == 36
    assert draw_train_rows(task, 0, seed=1) is task


def test_dev_rows_are_drawn_for_each_seed_and_the_others_are_not_used():
    task = make_task([0, 1] * 10)
    whole = task.splits["dev"]["text"][:]
    drawn = draw_dev_rows(task, 4, seed=1)
    kept = drawn.splits["dev"]["text"][:]
    assert (len(kept), set(kept) < set(whole)) == (4, True)
    assert draw_dev_rows(task, 4, seed=1).splits["dev"]["text"][:] == kept
    assert any(draw_dev_rows(task, 4, seed=s).splits["dev"]["text"][:] != kept for s in (2, 3, 4))
    assert drawn.splits["train"] is task.splits["train"]
    assert drawn.unlabelled is task.unlabelled
    assert draw_dev_rows(task, 0, seed=1) is task
    with pytest.raises(TaskError, match=r"cannot draw 99 dev rows .*the whole dev split"):
        draw_dev_rows(task, 99, seed=0)


def test_texts_without_a_label_are_drawn_for_each_seed_fewer_among_more(task):
    hidden = draw_train_rows(task, 10, seed=1)

    def texts(rows, seed):
        return draw_unlabelled_rows(hidden, rows, seed).unlabelled["text"][:]

    whole, many, few = hidden.unlabelled["text"][:], texts(12, 1), texts(5, 1)
    assert (len(whole), len(many), len(few)) == (30, 12, 5)
    assert set(few) < set(many) < set(whole)
    assert many == [text for text in whole if text in many], "in the order of the file"
    assert texts(5, 1) == few != texts(5, 2)
    assert draw_unlabelled_rows(hidden, 0, seed=1) is hidden
    kept = draw_unlabelled_rows(hidden, 5, seed=1)
    assert kept.splits is hidden.splits
    with pytest.raises(TaskError, match=r"cannot draw 31 .* expected at most 30"):
        draw_unlabelled_rows(hidden, 31, seed=1)
    with pytest.raises(TaskError, match=r"expected at most 0: .*--train-rows N"):
        draw_unlabelled_rows(task, 1, seed=1)


@pytest.mark.parametrize("rows", [-1, 2, 41])
def test_impossible_draws_say_what_is_possible(rows):
    with pytest.raises(TaskError, match=f"cannot draw {rows} .* from 3 .* to 40"):
        draw_train_rows(make_task([0] * 30 + [1] * 9 + [2]), rows, seed=0)
