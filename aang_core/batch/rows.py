"""What flows between the stages: `Row` → `Packed` → `Targets`, and `Hidden` on the way back.

Fixed letters: B rows, T positions of one row, N packed positions (the rows of a batch, one after the
other, without padding), M targets, H hidden size, E embedding size. The core gives no meaning to the
ids that `inputs` hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from aang_core.data.metrics import IGNORED as IGNORED
from aang_core.errors import TaskError


@attrs.frozen
class Layout:
    """What an output needs a row to look like.

    :param kind: ``single`` (one text), ``pair`` (two in one row), ``neighbours`` (rows 2i and 2i+1 belong
        together) or ``two-views`` (rows 2i and 2i+1 are the same text).
    :param relation: which structural question the source asks when it draws such rows (``next``, ``order``, …);
        its answer is `Row.structure`. Two ask nothing and only say which rows will do: ``label`` (rows whose label
        the run may see) and ``tags`` (rows whose words have tags, in the mark ``tag``).
    """

    kind: str = "single"
    relation: str = ""


SINGLE = Layout()


@attrs.frozen
class Origin:
    """Where a row comes from: the source's name, the document and the index in it."""

    source: str
    document: int
    index: int


@attrs.frozen(eq=False)
class Row:
    """One example, ready for the encoder.

    :param inputs: encoder inputs by name, each [T] or [T, …] (``input_ids``, ``patches``, …); all of one length.
    :param special: [T] bool, positions that no transform selects.
    :param marks: facts about positions, each [T] (``word``: index of the word a position belongs to, or −1;
        ``cased``, ``sentence``, …).
    :param label: the end-task's answer: a class, a number, several, one a position, or None.
    :param structure: the answer to the layout's structural question, or None.
    :param proposals: [T] plausible other inputs from a language model, or None.
    :param weight: what multiplies the losses of this row's targets, such as how sure a pseudo-label is.
    """

    inputs: Mapping[str, Tensor]
    special: Tensor
    origin: Origin
    marks: Mapping[str, Tensor] = attrs.field(factory=dict)
    label: Any = None
    structure: int | None = None
    proposals: Tensor | None = None
    weight: float = 1.0

    def __len__(self) -> int:
        return self.special.shape[0]


def word_starts(word: Tensor) -> Tensor:
    """[T] bool: the first position of each word; `word` as in `lay_on_words`."""
    first = word >= 0
    first[1:] &= word[1:] != word[:-1]
    return first


def lay_on_words(word: Tensor, values: Sequence[int]) -> Tensor:
    """[T] long: each word's value at the first of its positions, −100 elsewhere.

    :param word: [T] the mark ``word``; −1 outside words.
    :param values: one a word; words that were cut from the row have no position.
    :raises TaskError: where there are more words than values.
    """
    if len(word) and int(word.max()) >= len(values):
        raise TaskError(
            f"expected one label per word, found {len(values)} labels for {int(word.max()) + 1} words; "
            "give the text as a list of words, each with its label"
        )
    first = word_starts(word)
    laid = torch.full_like(word, IGNORED)
    laid[first] = torch.tensor(values, dtype=torch.long)[word[first]]
    return laid


@attrs.frozen(eq=False)
class Packed:
    """The rows of one objective, concatenated. Replaced by transforms (`attrs.evolve`), never changed in place.

    :param inputs: each [N].
    :param original: the inputs before the transform, each [N]: those of the text while the transform is aligned, of the
        positions that remain where it is not.
    :param special: [N] bool.
    :param marks: each [N].
    :param offsets: [B + 1], where rows begin; the last is N.
    :param selected: [N] bool, the positions that the transform chose; all False before.
    :param labels: one per row, as in `Row.label`.
    :param structure: [B] long, or None.
    :param proposals: [N], or None; −1 where a row has none.
    :param noise: [N, E] to be added to the input embeddings, or None.
    :param dropped: [N] bool, positions whose input embedding is zero, or None.
    :param order: [N] each position's rank in its row's factorisation order, where the representation has one.
    :param tag: the representation's tag, so that outputs know in which direction the next position lies.
    :param weights: [B] the rows' weights, which the core multiplies into the losses; None where all are 1.
    :param elapsed: the share of the run's steps that are done, from 0 to 1, for outputs that are ramped up.
    """

    inputs: Mapping[str, Tensor]
    original: Mapping[str, Tensor]
    special: Tensor
    marks: Mapping[str, Tensor]
    offsets: Tensor
    selected: Tensor
    labels: Sequence[Any]
    origins: Sequence[Origin]
    structure: Tensor | None = None
    proposals: Tensor | None = None
    noise: Tensor | None = None
    dropped: Tensor | None = None
    order: Tensor | None = None
    tag: str = "full"
    weights: Tensor | None = None
    elapsed: float = 0.0

    @property
    def lengths(self) -> Tensor:
        """[B] positions in each row."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def row_of(self) -> Tensor:
        """[N] the row that each position belongs to."""
        return torch.repeat_interleave(torch.arange(len(self.lengths)), self.lengths)

    @property
    def positions(self) -> Tensor:
        """[N] each position's place in its own row."""
        return torch.arange(self.special.shape[0]) - self.offsets[:-1][self.row_of]


@attrs.frozen(eq=False)
class Targets:
    """What one objective is to predict, and which hidden states its head reads for it.

    :param index: [M] or [M, J] (J states a target): positions of the stream, or row numbers.
    :param value: [M, …] what is to be predicted.
    :param level: ``position`` or ``row``: what `index` counts.
    :param extra: further tensors that the output's own `losses` needs, each [M, …].
    :param weight: [M] what the core multiplies each loss with before it sums; None for 1. The divisor stays M.
    """

    index: Tensor
    value: Tensor
    level: str = "position"
    extra: Mapping[str, Tensor] = attrs.field(factory=dict)
    weight: Tensor | None = None

    def __len__(self) -> int:
        return self.index.shape[0]

    def shifted(self, by: int) -> Targets:
        """The same targets where the stream has `by` positions (or rows) before them."""
        return attrs.evolve(self, index=self.index + by)

    def to(self, device: torch.device) -> Targets:
        """The same targets on `device`."""
        return self.moved(lambda tensor: tensor.to(device, non_blocking=True))

    def moved(self, move: Callable[[Tensor], Tensor]) -> Targets:
        """The same targets, each tensor as `move` gives it."""
        return attrs.evolve(
            self,
            index=move(self.index),
            value=move(self.value),
            extra={name: move(tensor) for name, tensor in self.extra.items()},
            weight=None if self.weight is None else move(self.weight),
        )


@attrs.frozen(eq=False)
class Hidden:
    """The encoder's answer for a packed stream.

    :param states: [N, H].
    :param offsets: [B + 1] on the CPU; row r is ``states[offsets[r]:offsets[r + 1]]``.
    """

    states: Tensor
    offsets: Tensor

    def first(self, rows: Tensor) -> Tensor:
        """[len(rows), H]: the state at the first position of each row."""
        return self.states[self.offsets[:-1].to(rows.device)[rows]]

    def padded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The rows as [R, T, H] with zeros behind their end, and [R, T] bool, True on real positions."""
        lengths = self.offsets[1:] - self.offsets[:-1]
        # a device would be waited for, so there the longest row of all bounds the rows asked for
        here = lengths[rows] if rows.device.type == "cpu" else lengths
        place = torch.arange(int(here.max()) if len(rows) else 0, device=rows.device)[None, :]
        lengths, starts = (t.to(rows.device)[rows][:, None] for t in (lengths, self.offsets[:-1]))
        mask, source = place < lengths, starts + place.minimum(lengths - 1)
        mask = mask.to(self.states.device)
        padded = self.states[source.to(self.states.device)].masked_fill(~mask[..., None], 0.0)
        return padded, mask

    def means(self, rows: Tensor) -> Tensor:
        """[len(rows), H]: the mean over each row's positions."""
        padded, mask = self.padded(rows)
        return padded.sum(1) / mask.sum(1, keepdim=True).to(padded.dtype)
