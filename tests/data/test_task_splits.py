"""Drawing rows: sizes and proportions for any labels, and the same draw for the same seed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from _tasks import write_split
from hypothesis import given, settings
from hypothesis import strategies as st

from aang_core.data.duplicates import repeats_together
from aang_core.data.splits import (
    draw_by_class,
    draw_covering,
    labels_together,
    share_out,
    split_rows,
)
from aang_core.data.task import Task, load_task
from aang_core.errors import TaskError

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=7)


@given(counts=COUNTS, data=st.data())
def test_shares_add_up_and_stay_near_proportion(counts, data):
    size = data.draw(
        st.integers(len(counts), sum(counts)) if sum(counts) >= len(counts) else st.just(0)
    )
    shares = share_out(counts, size)
    assert sum(shares) == size
    assert all(1 <= share <= count for share, count in zip(shares, counts, strict=True))
    for share, count in zip(shares, counts, strict=True):  # up to the rows lent to make ends meet
        assert abs(share - size * count / sum(counts)) <= 1 + len(counts)


@settings(deadline=None)
@given(counts=st.lists(st.integers(3, 40), min_size=2, max_size=6))
def test_every_split_has_every_class_of_three(counts):
    labels = [i for i, count in enumerate(counts) for _ in range(count)]
    parts = split_rows("class", labels, [0.15, 0.15])
    assert sorted(row for part in parts for row in part) == list(range(len(labels)))
    for part in parts:
        assert {labels[row] for row in part} == set(labels)
    assert parts == split_rows("class", labels, [0.15, 0.15])


def test_proportions_are_kept():
    keys = ["a"] * 600 + ["b"] * 300 + ["c"] * 100
    drawn = draw_by_class(keys, 100, np.random.default_rng(3))
    assert Counter(keys[row] for row in drawn) == {"a": 60, "b": 30, "c": 10}
    assert drawn == sorted(set(drawn))


@given(sets=st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=20))
def test_covering_draws_hold_every_label(sets):
    size = min(len(sets), 6)  # six labels never need more than six rows
    rows = draw_covering(sets, size, np.random.default_rng(0))
    assert len(set(rows)) == size
    assert set().union(*(sets[row] for row in rows)) == set().union(*sets)


def test_repeats_are_split_by_the_rarest_class_or_all_labels():
    groups = repeats_together([["A b", "c", "a  B", "c"], ["x", "y", "x", "z"]])
    assert groups == [[0, 2], [1], [3]]
    assert labels_together("class", [0, 0, 1, 0], groups) == [1, 0, 0]
    flags = [[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert labels_together("multilabel", flags, groups) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert labels_together("token", [[1], [2], [3], [4]], groups) == [[1, 3], [2], [4]]
    assert labels_together("regression", [0.5, 1.0, 2.0, 3.0], groups) == [0.5, 1.0, 3.0]


def read(path: Path) -> Task:
    return load_task(str(path), reads=("text",), registered={}, external={})


def repeated(count: int) -> list[dict]:
    """Every third text stands there again, in capitals and with other blanks; one does so with the other label."""
    rows = [{"text": f"text {i}", "label": "ab"[i % 4 == 0]} for i in range(count)]
    again = [{**row, "text": row["text"].upper().replace(" ", "  ")} for row in rows[::3]]
    return [*rows, *again, *again, {"text": "text 0", "label": "a"}]


@pytest.mark.parametrize("given", ["nothing", "test"])
def test_equal_texts_fall_into_one_split(given, tmp_path):
    rows = repeated(120)
    write_split(tmp_path, "train", rows)
    if given == "test":
        write_split(tmp_path, "test", rows[:2])
    task = read(tmp_path)
    made = {
        split: task.splits[split] for split in ("train", "dev", "test")[: 2 + (given != "test")]
    }
    forms = {n: {" ".join(t.lower().split()) for t in part["text"]} for n, part in made.items()}
    assert sum(map(len, forms.values())) == len(set().union(*forms.values())) == 120
    assert sum(map(len, made.values())) == len(rows)
    assert len(forms["dev"]) == 18
    for part in made.values():
        labels = part["label"][:]
        assert abs(labels.count(1) / len(labels) - 0.25) < 0.1
    assert "81 repeats of a text were kept" in task.remarks[-1]
    again = read(tmp_path)
    assert again.splits["dev"]["text"][:] == task.splits["dev"]["text"][:]


def test_repeats_of_one_text_do_not_make_a_class_large_enough(tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i == 4]} for i in range(5)]
    same = [{"text": text, "label": "b"} for text in ("same", "Same")]
    write_split(tmp_path, "all", [*rows, *same])
    with pytest.raises(TaskError, match=r"at least 3 examples with different texts; .*: b \(2\)"):
        read(tmp_path / "all.jsonl")
