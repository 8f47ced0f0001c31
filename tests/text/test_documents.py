"""Sentences in document order: every layout on a corpus made by hand, and corpora that lack something."""

from collections import Counter

import attrs
import pytest
import torch
from aang_text.data.documents import Sentences
from aang_text.data.sources import in_domain
from aang_text.outputs.structure import NextSentence, SentenceOrder

from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Layout
from aang_core.errors import PluginError, TaskError
from aang_core.registry.legality import Illegal, Legal, Objective, judge
from aang_core.registry.registry import load_registry
from aang_core.testing import tiny_backbone, tiny_task

# the sentence j of document i begins with the number 10 · i + j
DOCUMENTS = [["10 1 1 1", "11 1 1 1", "12 1 1 1"], ["20 2 2 2", "21 2 2 2"], ["30 3 3 3"]]
ROWS = 600
REGISTRY = load_registry()


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(kind, relation="", documents=DOCUMENTS, count=ROWS):
    return Sentences("made", documents).draw(Layout(kind, relation), count, gen())


def number(text):
    """Which sentence a text is: (document, place)."""
    return divmod(int(text.split()[0]) - 10, 10)


def corpus(tmp_path, text, backbone=None, **more):
    (tmp_path / "corpus.txt").write_text(text, encoding="utf-8")
    task = attrs.evolve(tiny_task(), external={"in-domain": tmp_path / "corpus.txt"})
    backbone = backbone or tiny_backbone()
    return Binding(task=task, backbone=backbone, options={}, **more)


def test_next_is_half_the_following_sentence_and_half_one_of_another_document():
    pairs = drawn("pair", "next")
    for pair in pairs:
        (d, i), (other, j) = number(pair.first), number(pair.second)
        assert ((d, i), (other, j)) == (pair.place, pair.other)
        assert (other, j) == (d, i + 1) if pair.answer else other != d
    share = Counter(pair.answer for pair in pairs)[1] / ROWS
    assert abs(share - 0.5) < 0.07
    assert {number(pair.second)[0] for pair in pairs if not pair.answer} == {0, 1, 2}


def test_adjacent_has_three_answers_equally_often():
    pairs = drawn("pair", "adjacent")
    for pair in pairs:
        (d, i), (other, j) = number(pair.first), number(pair.second)
        expected = 0 if other != d else {1: 1, -1: 2}[j - i]
        assert pair.answer == expected
    counts = Counter(pair.answer for pair in pairs)
    assert all(abs(counts[answer] / ROWS - 1 / 3) < 0.07 for answer in (0, 1, 2))


def test_order_swaps_half_of_the_neighbours():
    for pair in drawn("pair", "order"):
        (d, i), (other, j) = number(pair.first), number(pair.second)
        assert d == other
        assert j - i == (1 if pair.answer else -1)


def test_continuation_ends_the_same_sentence_or_another_one():
    whole = [[f"{d} a{d} b{d} c{d} d{d} e{d}", f"{d}1 f{d} g{d} h{d}"] for d in range(3)]
    everything = {sentence for document in whole for sentence in document}
    for pair in drawn("pair", "continuation", whole):
        begin, end = pair.first.split(), pair.second.split()
        assert min(len(begin), len(end)) >= 2
        assert (f"{pair.first} {pair.second}" in everything) == bool(pair.answer)
        assert any(sentence.endswith(pair.second) for sentence in everything)


def test_neighbours_follow_each_other_and_first_sentences_open_their_document():
    for pair in drawn("neighbours"):
        assert pair.other == (pair.place[0], pair.place[1] + 1)
    for pair in drawn("neighbours", "first"):
        assert pair.place[1] == 0
        assert pair.other[0] == pair.place[0]
        assert pair.other[1] > 0


def test_documents_are_drawn_once_while_there_are_enough():
    documents = [[f"{d} a.", f"{d} b."] for d in range(50)]
    pairs = drawn("neighbours", documents=documents, count=40)
    assert len({pair.place[0] for pair in pairs}) == 40
    assert drawn("neighbours", count=40) == drawn("neighbours", count=40)


def test_texts_are_split_into_sentences():
    pairs = drawn("neighbours", documents=[["One is here. Two is there.", "Three is away."]])
    assert {pair.second for pair in pairs} == {"Two is there.", "Three is away."}


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([["a b"]], set()),
        ([["a b"], ["c d"]], set()),
        ([["a b", "c d"]], {"data:document-order"}),
        ([["a b", "c d"], ["e f", "g h"]], {"data:document-order", "data:documents"}),
        ([["a b c d"], ["e f g h"]], {"data:sentences"}),
    ],
)
def test_a_corpus_says_what_it_can_give(documents, expected):
    assert Sentences("made", documents).provides() == expected


def test_what_the_corpus_lacks_makes_objectives_illegal_with_the_reason(tmp_path):
    objective = Objective("in-domain", "no-op", "bidirectional", "nsp")
    one = in_domain(corpus(tmp_path, "1 2 3\n\n\n"))
    verdict = judge(objective, REGISTRY, settled=one.provides)
    assert isinstance(verdict, Illegal)
    assert "nsp needs data:document-order; in-domain does not provide it" in verdict.reason
    single = in_domain(corpus(tmp_path, "1 2\n3 4\n5 6\n\n7 8\n"))
    verdict = judge(objective, REGISTRY, settled=single.provides)
    assert verdict == Illegal(objective, "nsp needs data:documents; in-domain does not provide it")
    order = attrs.evolve(objective, output="sentence-order")
    assert judge(order, REGISTRY, settled=single.provides) == Legal(order)


def test_empty_documents_are_counted(tmp_path):
    heard = []
    for name, text in (("a", "1 2\n3 4\n"), ("b", "\n \n"), ("c", "5 6\n")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    task = attrs.evolve(tiny_task(), external={"in-domain": tmp_path})
    source = in_domain(Binding(task=task, backbone=None, options={}, remark=heard.append))
    assert len(source) == 3
    assert heard == [f"in-domain: {tmp_path}: 1 empty documents skipped"]


def test_rows_of_a_pair_hold_both_texts_and_the_answer(tmp_path):
    source = in_domain(corpus(tmp_path, "1 2\n3 4\n\n5 6\n7 8\n"))
    rows = source.draw(Layout("pair", "order"), 8, gen())
    for row in rows:
        ids = row.inputs["input_ids"].tolist()
        assert [ids[0], ids[3], ids[-1]] == [1, 2, 2]
        assert row.structure == int(ids[1] < ids[4])
        assert row.origin.source == "in-domain"
    neighbours = source.draw(Layout("neighbours"), 8, gen())
    for one, other in zip(neighbours[::2], neighbours[1::2], strict=True):
        assert one.origin.document == other.origin.document
        assert other.origin.index == one.origin.index + 1


def test_a_layout_that_is_not_known_is_named():
    with pytest.raises(PluginError, match=r"'pair' with the relation\s+'rhyme'"):
        drawn("pair", "rhyme")


def test_a_corpus_without_pairs_is_refused_before_training(tmp_path):
    source = in_domain(corpus(tmp_path, "1 2\n"))
    with pytest.raises(TaskError, match="in-domain: expected documents of several sentences"):
        SentenceOrder(corpus(tmp_path, "1 2\n", source=source))


def test_pairs_longer_than_the_encoder_are_cut_at_the_longer_text_and_counted(tmp_path):
    from aang_text.encoder.backbone import load

    from aang_core.batch.protocols import BackboneSettings

    backbone = load("scratch:tiny", BackboneSettings(device="cpu", max_length=12))
    text = "the names of a list\n" + "value " * 30 + "\n\nlist\ntuple\n"
    heard = []
    base = corpus(tmp_path, text, backbone, remark=heard.append)
    source = in_domain(base)
    NextSentence(attrs.evolve(base, source=source))
    (remark,) = [text for text in heard if text.startswith("nsp")]
    assert "pairs are longer than 12 positions; the longer text of each is cut" in remark
    assert 0 < int(remark.split()[1]) < 256
    for row in source.draw(Layout("pair", "order"), 20, gen()):
        assert len(row) <= 12
        sides = Counter(row.marks["sentence"].tolist())
        if len(row) == 12:  # five words and three special positions leave four of the thirty
            assert sorted((sides[0], sides[1])) == [4, 5]
