"""Sentences in document order: rows of two texts with a question about them, and rows that are neighbours.

The questions are those of "On Losses for Modern Language Models" (Aroca-Ouellette and Rudzicz, EMNLP 2020,
§3) and of the papers that it takes them from; `Row.structure` is the answer.

========= ============== ============================================================================
kind      relation       rows, and the answer
========= ============== ============================================================================
pair      next           half: a sentence and the next one (1); half: one of another document (0)
pair      adjacent       thirds: of another document (0), the next one (1), the one before (2)
pair      order          half: two neighbours in their order (1); half: swapped (0)
pair      continuation   half: the two parts of one sentence (1); half: the end of another sentence (0)
neighbours               2i and 2i + 1 are a sentence and the next one
neighbours first         2i is a document's first sentence, 2i + 1 another one of it
========= ============== ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import attrs
import torch
from torch import Generator

from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Layout, Origin
from aang_core.errors import PluginError, TaskError
from aang_text.data.corpora import split_sentences

ORDER, SEVERAL, PARTS = "data:document-order", "data:documents", "data:sentences"
"""What corpora may provide: a document of two sentences; two such documents; two sentences that can be parted."""

CAPABILITIES = frozenset({ORDER, SEVERAL, PARTS})
LEAST_PART = 2
"""Words that either part of a parted sentence has at the least."""

_PROBED = 256


@attrs.frozen
class Pair:
    """Two texts, where the first one stands, where the second one stands, and the answer to the question."""

    first: str
    second: str
    place: tuple[int, int]
    other: tuple[int, int]
    answer: int


class Sentences:
    """Documents as sentences, each split when it is first asked for.

    :param documents: the texts of each document.
    """

    def __init__(self, name: str, documents: Sequence[Sequence[str]]) -> None:
        self.name, self.documents = name, documents
        self._split: dict[int, list[str]] = {}

    def __len__(self) -> int:
        return len(self.documents)

    def of(self, document: int) -> list[str]:
        """The sentences of one document, at least one."""
        if document not in self._split:
            texts = self.documents[document]
            self._split[document] = [s for text in texts for s in split_sentences(text)]
        return self._split[document]

    def provides(self) -> frozenset[str]:
        """Which of `CAPABILITIES` these documents have; reads no further than it must."""
        long = 0  # documents of two sentences or more
        parted = 0
        for document in range(len(self)):
            sentences = self.of(document)
            long += len(sentences) > 1
            parted += sum(_can_be_parted(sentence) for sentence in sentences)
            if long > 1 and parted > 1:
                break
        found = {ORDER: long > 0, SEVERAL: long > 1, PARTS: parted > 1}
        return frozenset(name for name, holds in found.items() if holds)

    def draw(self, layout: Layout, count: int, generator: Generator) -> list[Pair]:
        """`count` pairs. Documents are drawn uniformly, places in them too; each answer is equally likely.

        :raises PluginError: for a layout that this module's docstring does not list.
        :raises TaskError: where the documents have no pair of the kind.
        """
        known: dict[Layout, Callable[[int, Generator], list[Pair]]] = {
            Layout("pair", "next"): self._next,
            Layout("pair", "adjacent"): self._adjacent,
            Layout("pair", "order"): self._order,
            Layout("pair", "continuation"): self._continuation,
            Layout("neighbours"): self._neighbours,
            Layout("neighbours", "first"): self._first,
        }
        if layout not in known:
            raise PluginError(
                f"{self.name}: knows no layout of the kind {layout.kind!r} with the relation "
                f"{layout.relation!r}; declare what the output requires"
            )
        return known[layout](count, generator)

    def _next(self, count: int, generator: Generator) -> list[Pair]:
        pairs = []
        for pair in self._neighbours(count, generator):
            follows = _below(2, generator)
            pairs.append(attrs.evolve(pair, answer=1) if follows else self._away(pair, generator))
        return pairs

    def _adjacent(self, count: int, generator: Generator) -> list[Pair]:
        pairs = []
        for pair in self._neighbours(count, generator):
            answer = _below(3, generator)
            made = (self._away(pair, generator), attrs.evolve(pair, answer=1), _swapped(pair, 2))
            pairs.append(made[answer])
        return pairs

    def _order(self, count: int, generator: Generator) -> list[Pair]:
        return [
            attrs.evolve(pair, answer=1) if _below(2, generator) else _swapped(pair, 0)
            for pair in self._neighbours(count, generator)
        ]

    def _continuation(self, count: int, generator: Generator) -> list[Pair]:
        """Sentences are parted between two words, anywhere that leaves two to either side."""
        starts = self._parted(count, generator)
        ends = self._parted(count, generator)
        pairs = []
        for start, end in zip(starts, ends, strict=True):
            own = _below(2, generator) or start.place == end.place
            pairs.append(
                attrs.evolve(start, answer=1)
                if own
                else attrs.evolve(start, second=end.second, other=end.other)
            )
        return pairs

    def _neighbours(self, count: int, generator: Generator) -> list[Pair]:
        pairs = []
        for document in self._drawn(count, generator, self._is_long):
            sentences = self.of(document)
            i = _below(len(sentences) - 1, generator)
            places = (document, i), (document, i + 1)
            pairs.append(Pair(sentences[i], sentences[i + 1], *places, answer=0))
        return pairs

    def _first(self, count: int, generator: Generator) -> list[Pair]:
        pairs = []
        for document in self._drawn(count, generator, self._is_long):
            sentences = self.of(document)
            j = 1 + _below(len(sentences) - 1, generator)
            pairs.append(Pair(sentences[0], sentences[j], (document, 0), (document, j), answer=0))
        return pairs

    def _parted(self, count: int, generator: Generator) -> list[Pair]:
        pairs = []
        for document in self._drawn(count, generator, self._has_parts):
            sentences = self.of(document)
            able = [i for i, sentence in enumerate(sentences) if _can_be_parted(sentence)]
            i = able[_below(len(able), generator)]
            words = sentences[i].split()
            cut = LEAST_PART + _below(len(words) - 2 * LEAST_PART + 1, generator)
            parts = " ".join(words[:cut]), " ".join(words[cut:])
            pairs.append(Pair(*parts, (document, i), (document, i), answer=0))
        return pairs

    def _away(self, pair: Pair, generator: Generator) -> Pair:
        """The pair with a second sentence from another document, uniform over documents."""
        document = (pair.place[0] + 1 + _below(len(self) - 1, generator)) % len(self)
        sentences = self.of(document)
        i = _below(len(sentences), generator)
        return attrs.evolve(pair, second=sentences[i], other=(document, i), answer=0)

    def _is_long(self, document: int) -> bool:
        return len(self.of(document)) > 1

    def _has_parts(self, document: int) -> bool:
        return any(_can_be_parted(sentence) for sentence in self.of(document))

    def _drawn(
        self, count: int, generator: Generator, fits: Callable[[int], bool]
    ) -> Iterable[int]:
        """`count` fitting documents, uniform; each at most once while there are enough, then again.

        :raises TaskError: where none fits.
        """
        found: list[int] = []
        for document in torch.randperm(len(self), generator=generator).tolist():
            if len(found) == count:
                break
            if fits(document):
                found.append(document)
        if count and not found:
            raise TaskError(
                f"{self.name}: expected documents of several sentences, found none in "
                f"{len(self)} documents; give a corpus with document order"
            )
        return [found[i % len(found)] for i in range(count)]


def pair_examples(
    name: str, pairs: Sequence[Pair]
) -> tuple[list[dict[str, str]], list[Origin], list[int]]:
    """Columns for one row a pair, their origins (where the first text stands), and the answers."""
    examples = [{"text": pair.first, "text_pair": pair.second} for pair in pairs]
    return examples, [Origin(name, *pair.place) for pair in pairs], [p.answer for p in pairs]


def neighbour_examples(
    name: str, pairs: Sequence[Pair]
) -> tuple[list[dict[str, str]], list[Origin]]:
    """Columns for two rows a pair, and their origins."""
    examples = [{"text": text} for pair in pairs for text in (pair.first, pair.second)]
    places = [place for pair in pairs for place in (pair.place, pair.other)]
    return examples, [Origin(name, *place) for place in places]


def say_what_is_cut(binding: Binding, output: str, layout: Layout) -> None:
    """Draw some rows before training starts, and say how many of them are longer than the encoder can read.

    :raises TaskError: where the source has no rows of this layout, so that a run ends here and not at some step.
    """
    source, backbone = binding.source, binding.backbone
    if source is None:
        raise TaskError(f"{output}: expected a bound data source to draw rows from, found none")
    before = int(getattr(backbone, "truncated", 0))
    source.draw(layout, _PROBED, torch.Generator().manual_seed(binding.seed))
    cut = int(getattr(backbone, "truncated", 0)) - before
    if backbone is not None and cut:
        what = "pairs" if layout.kind == "pair" else "sentences"
        binding.remark(
            f"{output}: {cut} of {_PROBED} {what} are longer than {backbone.max_length} positions; "
            + ("the longer text of each is cut" if layout.kind == "pair" else "they are cut")
        )


def _below(bound: int, generator: Generator) -> int:
    return int(torch.randint(bound, (1,), generator=generator))


def _swapped(pair: Pair, answer: int) -> Pair:
    return Pair(pair.second, pair.first, pair.other, pair.place, answer)


def _can_be_parted(sentence: str) -> bool:
    return len(sentence.split()) >= 2 * LEAST_PART
