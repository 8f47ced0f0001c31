"""Texts → `Row`s: encoder inputs, special positions, and marks from the tokenizer's character offsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from aang_core.batch.rows import Origin, Row
from aang_core.errors import TaskError

IDS = "input_ids"
"""The encoder's input of texts: [T] token ids."""


class Tokens:
    """A fast tokenizer with a length limit.

    :param max_length: positions of the longest row, special ones included.
    :param inputs: names of the encoder's inputs; what else the tokenizer returns is left out.
    :ivar truncated: how many texts have been cut so far.
    """

    def __init__(self, tokenizer: Any, max_length: int, inputs: frozenset[str]) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.inputs = inputs
        self.truncated = 0

    def rows(self, examples: Sequence[Mapping[str, Any]], origins: Sequence[Origin]) -> list[Row]:
        """One row an example: ``text`` (a string, or a list of words), ``text_pair`` where it is not None, ``label``.

        Pairs are cut at the longer text first.

        :raises TaskError: where a text is neither a string nor a list of strings.
        """
        rows: list[Row | None] = [None] * len(examples)
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for index, example in enumerate(examples):
            kinds.setdefault(_kind(example, origins[index]), []).append(index)
        for (split, paired), indices in kinds.items():
            chosen = [examples[index] for index in indices]
            for index, encoding in zip(indices, self._encoded(chosen, split, paired), strict=True):
                rows[index] = self._row(examples[index], origins[index], encoding)
        return [row for row in rows if row is not None]

    def padded(self, examples: Sequence[Mapping[str, Any]], most: int) -> Iterator[Any]:
        """The same examples as ordinary padded batches of tensors, as a user of the exported model makes them.

        In order, at most `most` at a time.
        """
        for (split, paired), run in groupby(examples, lambda example: _kind(example, None)):
            alike = list(run)
            for start in range(0, len(alike), most):
                yield self.tokenizer(
                    *_columns(alike[start : start + most], paired),
                    is_split_into_words=split,
                    truncation="longest_first" if paired else True,
                    max_length=self.max_length,
                    padding=True,
                    return_tensors="pt",
                )

    def _encoded(
        self, examples: Sequence[Mapping[str, Any]], split: bool, paired: bool
    ) -> Sequence[Any]:
        batch = self.tokenizer(
            *_columns(examples, paired),
            is_split_into_words=split,
            truncation="longest_first" if paired else True,
            max_length=self.max_length,
        )
        return batch.encodings or []

    def _row(self, example: Mapping[str, Any], origin: Origin, encoding: Any) -> Row:
        self.truncated += bool(encoding.overflowing)
        inputs = {IDS: torch.tensor(encoding.ids)}
        if "token_type_ids" in self.inputs:
            inputs["token_type_ids"] = torch.tensor(encoding.type_ids)
        marks = {
            "word": _words(encoding),
            "cased": _cased(encoding, example),
            "sentence": [-1 if each is None else each for each in encoding.sequence_ids],
        }
        return Row(
            inputs=inputs,
            special=torch.tensor([each is None for each in encoding.sequence_ids]),
            origin=origin,
            marks={name: torch.tensor(values) for name, values in marks.items()},
            label=example.get("label"),
        )


def _kind(example: Mapping[str, Any], origin: Origin | None) -> tuple[bool, bool]:
    """Whether the texts are given as words, and whether there are two."""
    texts = [example.get("text"), example.get("text_pair")]
    for text in texts[: 1 if texts[1] is None else 2]:
        if isinstance(text, str):
            continue  # a sequence of strings too, and a long one
        if not (isinstance(text, Sequence) and all(isinstance(word, str) for word in text)):
            where = f" at {origin.source} {origin.document}:{origin.index}" if origin else ""
            raise TaskError(
                f"expected a text or a list of words, found {text!r}{where}; check the text column"
            )
    return not isinstance(texts[0], str), texts[1] is not None


def _columns(examples: Sequence[Mapping[str, Any]], paired: bool) -> list[list[Any]]:
    names = ("text", "text_pair") if paired else ("text",)
    return [[_plain(example[name]) for example in examples] for name in names]


def _plain(text: str | Sequence[str]) -> str | list[str]:
    return text if isinstance(text, str) else list(text)


def _words(encoding: Any) -> list[int]:
    """Word numbers, going on in the second text; −1 on special positions."""
    words, first = [], 0
    for word, sequence in zip(encoding.word_ids, encoding.sequence_ids, strict=True):
        if word is None or sequence is None:
            words.append(-1)
            continue
        if sequence == 0:
            first = max(first, word + 1)
        words.append(word + first * sequence)
    return words


def _cased(encoding: Any, example: Mapping[str, Any]) -> list[int]:
    """How the characters beneath each position are written: 0 otherwise, 1 capitalised, 2 all capitals, −1 special.

    Read from the text itself, so that uncased tokenizers lose nothing. One capital letter alone counts as 1.
    """
    texts: tuple[Any, Any] = (example["text"], example.get("text_pair"))
    cases = []
    places = zip(encoding.offsets, encoding.sequence_ids, encoding.word_ids, strict=True)
    for (start, stop), sequence, word in places:
        if sequence is None:
            cases.append(-1)
            continue
        text = texts[sequence]
        # Offsets count within the word where words were given.
        shown = (text if isinstance(text, str) else text[word])[start:stop].strip()
        capitals = shown.isupper() and len(shown) > 1
        cases.append(2 if capitals else int(shown[:1].isupper()))
    return cases
