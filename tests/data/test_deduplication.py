"""Near duplicates against all pairs compared one by one; passages against plain substring search."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from aang_core.data.duplicates import (
    NEAR,
    joined,
    near_duplicates,
    passages_in,
    repeats_together,
    rows_seen_in,
    word_count,
)

words = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "and", "ran", "off", "Fast"])
texts = st.lists(st.lists(words, min_size=1, max_size=9).map(" ".join), min_size=1, max_size=8)


def features(text: str) -> set:
    found = re.findall(r"\w+", joined(text))
    return {*found, *itertools.pairwise(found)}


def similarity(a: str, b: str) -> float:
    x, y = features(a), features(b)
    return len(x & y) / len(x | y)


@given(texts, texts, st.sampled_from([0.3, 0.5, NEAR, 1.0]))
def test_near_duplicates_are_those_of_the_all_pairs_comparison(first, second, threshold):
    expected = {
        (i, j): round(similarity(a, b), 9)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if similarity(a, b) >= threshold - 1e-12
    }
    found = {(i, j): round(s, 9) for i, j, s in near_duplicates(first, second, threshold)}
    assert found == expected


def test_case_blanks_and_compatibility_forms_make_no_difference():
    assert joined("The  CAT\tsat ﬁne") == joined("the cat sat fine")
    assert near_duplicates(["One Two three"], ["one two  THREE"]) == [(0, 0, 1.0)]


def test_texts_without_words_are_near_nothing():
    assert near_duplicates(["...", "!"], ["..."]) == []


def test_scripts_without_blanks_are_compared_sign_by_sign():
    (found,) = near_duplicates(["今日は天気がとても良いですね"], ["今日は天気がとても良いですよ"])
    assert NEAR <= found[2] < 1


def test_a_pair_is_near_only_where_both_texts_are():
    train = [("one two three four", "five six seven eight")]
    assert near_duplicates([("one two three four", "nothing of the kind")], train) == []
    assert len(near_duplicates([train[0]], train)) == 1
    assert word_count(joined(train[0])) == 8


@given(texts, st.lists(words, min_size=1, max_size=60), st.integers(1, 20))
def test_passages_are_found_as_by_substring_search(examples, corpus, width):
    lines = [" ".join(corpus[i : i + width]) for i in range(0, len(corpus), width)]
    whole = f" {joined(' '.join(corpus))} "
    expected = [len(e.split()) >= 5 and f" {joined(e)} " in whole for e in examples]
    assert passages_in(examples, lines) == expected


def test_a_passage_far_into_a_long_corpus_is_found():
    corpus = [f"line {i} of a long text" for i in range(3000)]
    examples = ["LINE 2500 of a long text line 2501", "line 2500 of no text", ("x", corpus[7])]
    assert passages_in(examples, corpus) == [True, False, True]


def test_texts_are_compared_without_case_width_and_blanks():
    assert rows_seen_in(["A  text\n", "ﬁne"], ["a text", "fine", "other"]) == [True, True, False]
    assert rows_seen_in([("a", "b")], [("A", "b"), ("ab", "")]) == [True, False]


def test_repeats_share_a_group_whether_words_or_a_text():
    assert repeats_together([[["a", "B"], ["A b", "c"], ["a b"]]]) == [[0, 2], [1]]
