"""Data sources: which texts are drawn, what rows carry, and what is missing."""

import attrs
import pytest
import torch
from aang_text.data.sources import TaskTexts, in_domain, out_of_domain
from datasets import Dataset

from aang_core.batch.parts import distinct
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import SINGLE, Layout, lay_on_words
from aang_core.errors import PluginError, TaskError
from aang_core.testing import tiny_backbone, tiny_task

BACKBONE = tiny_backbone()


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def binding(task, backbone=BACKBONE):
    return Binding(task=task, backbone=backbone, options={})


def corpus_task(tmp_path, text, name="in-domain"):
    (tmp_path / "corpus.txt").write_text(text, encoding="utf-8")
    return attrs.evolve(tiny_task(), external={name: tmp_path / "corpus.txt"})


@pytest.mark.parametrize(("size", "count"), [(5, 3), (5, 5), (5, 12), (10_000, 64), (1, 2)])
def test_draws_repeat_only_when_they_must(size, count):
    numbers = distinct(size, count, gen())
    assert len(numbers) == count
    assert len(set(numbers[:size])) == min(size, count)
    assert all(0 <= n < size for n in numbers)


def test_draws_are_uniform():
    generator = gen()
    drawn = [n for _ in range(3000) for n in distinct(20, 4, generator)]
    shares = torch.bincount(torch.tensor(drawn), minlength=20) / len(drawn)
    assert (shares - 0.05).abs().max() < 0.01


def test_the_task_draws_all_its_texts_but_labels_only_where_it_has_them():
    task = tiny_task(rows=6)
    source = TaskTexts(binding(task))
    assert len(source) == 12
    every = {row.origin.document for row in source.draw(SINGLE, 12, gen())}
    assert every == set(range(12))
    labelled = source.draw(Layout(relation="label"), 40, gen())
    assert {row.origin.document for row in labelled} == set(range(6))
    for row in labelled:
        assert row.label == task.splits["train"]["label"][row.origin.document]
    assert [row.label for row in source.rows()][6:] == [None] * 6


def test_two_views_are_the_same_text_twice():
    rows = TaskTexts(binding(tiny_task())).draw(Layout("two-views"), 8, gen())
    texts = [row.origin.document for row in rows]
    assert texts[::2] == texts[1::2]
    assert len(set(texts)) == 4


def test_tokens_are_made_once():
    source = TaskTexts(binding(tiny_task()))
    first = {row.origin.document: row for row in source.rows()}
    for row in source.draw(SINGLE, 30, gen()):
        assert row is first[row.origin.document]


def test_tags_lie_on_the_first_piece_of_each_word():
    task = tiny_task(tags=True)
    source = TaskTexts(binding(task))
    assert source.provides == {"data:tags"}
    row = source.draw(Layout(relation="tags"), 1, gen())[0]
    tag, word = row.marks["tag"], row.marks["word"]
    tags = task.splits["train"]["tags"][row.origin.document]
    seen = set()
    for place in range(len(row)):
        w = int(word[place])
        assert int(tag[place]) == (-100 if w < 0 or w in seen else tags[w])
        seen.add(w)
    unlabelled = list(source.rows())[-1]
    assert (unlabelled.marks["tag"] == -100).all()


def test_the_labels_of_a_token_task_lie_on_positions():
    task = tiny_task("token")
    source = TaskTexts(binding(task))
    row = source.draw(Layout(relation="label"), 1, gen())[0]
    expected = lay_on_words(row.marks["word"], task.splits["train"]["label"][row.origin.document])
    assert torch.equal(row.label, expected)
    assert torch.equal(row.marks["tag"], expected)


def test_tags_that_do_not_fit_their_words_are_named_before_training():
    train = Dataset.from_dict({"text": ["1 2 3", "4 5"], "label": [0, 1], "tags": [[0, 1], [1, 0]]})
    task = attrs.evolve(tiny_task(), splits={"train": train})
    with pytest.raises(TaskError, match=r"column 'tags', found 1 rows .*row 1: 2 for 3 words"):
        TaskTexts(binding(task))


def test_labels_fewer_than_words_are_refused():
    with pytest.raises(TaskError, match="found 2 labels for 3 words"):
        lay_on_words(torch.tensor([-1, 0, 1, 2, -1]), [0, 1])


def test_an_empty_train_split_is_refused():
    task = attrs.evolve(tiny_task(), splits={"train": Dataset.from_dict({"text": []})})
    with pytest.raises(TaskError, match="empty train split"):
        TaskTexts(binding(task))


def test_a_missing_corpus_says_what_to_give():
    with pytest.raises(TaskError, match="--external in-domain=FILE"):
        in_domain(binding(tiny_task()))
    with pytest.raises(TaskError, match="out-of-domain: expected a corpus"):
        out_of_domain(binding(tiny_task()))


def test_a_corpus_keeps_its_documents(tmp_path):
    task = corpus_task(tmp_path, "1 2\n3 4\n\n5 6\n", "out-of-domain")
    source = out_of_domain(binding(task))
    places = [(row.origin.document, row.origin.index) for row in source.rows()]
    assert places == [(0, 0), (0, 1), (1, 0)]
    assert source.provides == {"data:document-order"}


def test_what_a_source_provides_needs_no_encoder(tmp_path):
    task = corpus_task(tmp_path, "1 2\n3 4\n")
    source = in_domain(binding(task, backbone=None))
    assert (len(source), source.provides) == (2, frozenset())


@pytest.mark.parametrize("layout", [Layout("neighbours"), Layout(relation="order")])
def test_layouts_that_a_source_cannot_give_are_named(layout):
    with pytest.raises(PluginError, match=layout.relation or layout.kind):
        TaskTexts(binding(tiny_task())).draw(layout, 2, gen())
