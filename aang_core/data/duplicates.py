"""Find texts that occur in two places: word for word, nearly, or inside a larger text. Used by the audit of a task.

Fixed letters: A and B examples, F features. An example is a text, or a tuple of texts (a pair).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

NEAR = 0.75
"""Jaccard similarity from which two texts count as nearly equal: one word of about twelve may differ."""

SHORTEST_PASSAGE = 5
"""Texts of fewer words are not looked for inside corpora, where they would turn up by chance."""

# Scripts without blanks (Chinese, Japanese) would make one word of a whole sentence, so each sign is a word there.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_BETWEEN = " \u241f "  # what joins the parts of a pair; not a word, so it is no feature


def texts_of(values: Sequence[Any]) -> list[str]:
    """A column as texts; the words of a token task's rows are joined."""
    return [" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]


def normalised(example: Any) -> Any:
    """A text, or several, in the form in which equal texts are equal: NFKC, case-folded, single blanks."""
    if isinstance(example, str):
        return " ".join(unicodedata.normalize("NFKC", example).casefold().split())
    return tuple(normalised(part) for part in example)


def rows_seen_in(train: Iterable[Any], other: Iterable[Any]) -> list[bool]:
    """For each of `other` whether it stands in `train`, by `normalised`; pairs are tuples of texts."""
    seen = {normalised(example) for example in train}
    return [normalised(example) in seen for example in other]


def repeats_together(columns: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Row numbers, those of equal inputs (by `normalised`) in one list; lists and rows in the order of the rows.

    :param columns: the inputs, a list of rows for each.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, example in enumerate(zip(*map(texts_of, columns), strict=True)):
        groups.setdefault(normalised(example), []).append(row)
    return list(groups.values())


def joined(example: Any) -> str:
    """One normalised text for an example; the parts of a pair, or the words of a list, in their order."""
    form = normalised(example)
    return form if isinstance(form, str) else _BETWEEN.join(map(joined, form))


def word_count(form: str) -> int:
    """Words of a `joined` example."""
    return sum(word != _BETWEEN.strip() for word in form.split())


def near_duplicates(
    first: Sequence[Any], second: Sequence[Any], threshold: float = NEAR
) -> list[tuple[int, int, float]]:
    """Every pair (row of `first`, row of `second`, similarity) of at least `threshold`, exact copies among them.

    The similarity is Jaccard's over the words and word pairs of the normalised texts. The search is exact and needs
    no A × B comparisons: two sets of that similarity share one of the rarest ``|x| − ⌈t |x|⌉ + 1`` features of each
    (prefix filtering: Chaudhuri et al., A Primitive Operator for Similarity Joins, ICDE 2006), and only pairs
    that do are compared.

    :param threshold: t in (0, 1].
    :return: sorted by rows.
    """
    features = _features([joined(e) for e in first], [joined(e) for e in second])
    if features is None:
        return []
    a, b, rarity = features
    candidates = (_prefixes(a, rarity, threshold) @ _prefixes(b, rarity, threshold).T).tocoo()
    rows, columns = candidates.row, candidates.col
    found: list[tuple[int, int, float]] = []
    sizes_a, sizes_b = np.diff(a.indptr), np.diff(b.indptr)
    for start in range(0, len(rows), 100_000):  # bounds the memory of the two gathered matrices
        i, j = rows[start : start + 100_000], columns[start : start + 100_000]
        shared = np.asarray(a[i].multiply(b[j]).sum(axis=1)).ravel()
        similarity = shared / (sizes_a[i] + sizes_b[j] - shared)
        keep = similarity >= threshold - 1e-12
        found += zip(i[keep].tolist(), j[keep].tolist(), similarity[keep].tolist(), strict=True)
    return sorted(found)


def _features(first: Sequence[str], second: Sequence[str]) -> tuple[Any, Any, Any] | None:
    """Binary [A, F] and [B, F] of words and word pairs, and each feature's rank from the rarest on."""
    # not scikit-learn's vectoriser: its import takes as long as 10,000 texts
    from scipy.sparse import csr_matrix

    known: dict[str, int] = {}
    indices: list[int] = []
    starts = [0]
    for text in (*first, *second):
        words = _WORD.findall(text)
        own = {*words, *map(" ".join, pairwise(words))}
        indices += sorted(known.setdefault(feature, len(known)) for feature in own)
        starts.append(len(indices))
    if not known:
        return None
    flat = np.asarray(indices, dtype=np.int32)
    shape = (len(starts) - 1, len(known))
    both = csr_matrix((np.ones(len(flat), dtype=np.int32), flat, starts), shape=shape)
    rarity = np.empty(len(known), dtype=np.int64)
    rarity[np.argsort(np.bincount(flat), kind="stable")] = np.arange(len(known))
    return both[: len(first)], both[len(first) :], rarity


def _prefixes(matrix: Any, rarity: Any, threshold: float) -> Any:
    """[rows, F] with each row's rarest features alone."""
    from scipy.sparse import csr_matrix

    indices, starts = [], [0]
    for row in range(matrix.shape[0]):
        own = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
        kept = len(own) - math.ceil(threshold * len(own) - 1e-9) + 1 if len(own) else 0
        indices.append(own[np.argsort(rarity[own])[:kept]])
        starts.append(starts[-1] + kept)
    flat = np.concatenate(indices)
    return csr_matrix((np.ones(len(flat), dtype=np.int32), flat, starts), shape=matrix.shape)


def passages_in(examples: Sequence[Any], corpus: Iterable[str]) -> list[bool]:
    """For each example whether one of its texts (of `SHORTEST_PASSAGE` words or more) stands in the corpus.

    :param corpus: texts in order, read once; a passage may run over their borders.
    """
    found = [False] * len(examples)
    wanted: dict[tuple[str, ...], list[tuple[list[str], int]]] = {}
    longest = SHORTEST_PASSAGE
    for row, example in enumerate(examples):
        for text in [example] if isinstance(example, str) else example:
            words = normalised(text).split() if isinstance(text, str) else []
            if len(words) >= SHORTEST_PASSAGE:
                wanted.setdefault(tuple(words[:SHORTEST_PASSAGE]), []).append((words, row))
                longest = max(longest, len(words))
    window: list[str] = []
    for text in corpus:
        window += normalised(text).split()
        if len(window) > 50 * longest:
            _mark(window, wanted, found)
            window = window[-longest:]
    _mark(window, wanted, found)
    return found


def _mark(
    window: Sequence[str],
    wanted: dict[tuple[str, ...], list[tuple[list[str], int]]],
    found: list[bool],
) -> None:
    """Mark the examples whose words stand in this stretch of a corpus."""
    openings = {key[0] for key in wanted}
    for at, word in enumerate(window):
        if word in openings:
            key = tuple(window[at : at + SHORTEST_PASSAGE])
            for words, row in wanted.get(key, ()):
                found[row] = found[row] or list(window[at : at + len(words)]) == words
