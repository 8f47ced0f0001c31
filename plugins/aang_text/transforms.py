"""Stage 2: how rows are corrupted. In: Packed. Out: a new Packed, selected and changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import attrs
import torch
from torch import Generator, Tensor

from aang_core.batch.parts import backbone_of
from aang_core.batch.positions import budgets, checked_rate, choose, select, select_spans, units
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Packed
from aang_core.errors import ConfigError
from aang_text.encoder.tokens import IDS

NOISES = ("gaussian", "uniform")
CUTS = ("span", "token")


class Selecting:
    """Selects positions and leaves them as they are: ``no-op``, and the base of the others."""

    name = "no-op"

    def __init__(self, binding: Binding) -> None:
        self.rate = checked_rate(binding.options, self.name)
        self.whole_words = bool(binding.options.get("whole_words", False))

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        """Select, then `changed`."""
        selected = select(packed, self.rate, self.whole_words, generator)
        return self.changed(attrs.evolve(packed, selected=selected), generator)

    def changed(self, packed: Packed, generator: Generator) -> Packed:  # noqa: ARG002
        """The packed rows with their selected positions changed."""
        return packed


class Mask(Selecting):
    """Every selected position becomes the mask token."""

    name = "mask"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.mask_id = _mask_id(binding, self.name)

    def changed(self, packed: Packed, generator: Generator) -> Packed:  # noqa: ARG002
        return _with_ids(packed, torch.where(packed.selected, self.mask_id, packed.inputs[IDS]))


class Replace(Selecting):
    """Every selected position becomes its row's proposal, or a uniform id where there is none."""

    name = "replace"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.replaceable = _replaceable(binding, self.name)

    def changed(self, packed: Packed, generator: Generator) -> Packed:
        new = _uniform_ids(self.replaceable, len(packed.special), generator)
        if packed.proposals is not None:
            new = torch.where(packed.proposals >= 0, packed.proposals, new)
        return _with_ids(packed, torch.where(packed.selected, new, packed.inputs[IDS]))


class Swap(Selecting):
    """Every selected position becomes a token of another text of the batch: a strong view of words that do occur.

    The token is uniform over the other rows' non-special positions, as they were before the transform (Xie et al.,
    UDA, NeurIPS 2020, replace words by words of the corpus; here the batch stands for it). A batch of one text keeps
    its tokens.
    """

    name = "swap"

    def changed(self, packed: Packed, generator: Generator) -> Packed:
        rows = len(packed.lengths)
        pool = packed.inputs[IDS][~packed.special]
        own = torch.bincount(packed.row_of[~packed.special], minlength=rows)
        begin, size = (own.cumsum(0) - own)[packed.row_of], own[packed.row_of]
        others = len(pool) - size
        draw = torch.rand(len(packed.special), generator=generator, dtype=torch.float64)
        place = (draw * others).long()
        # The other rows' tokens are those before the own ones, and those behind them.
        place = torch.where(place >= begin, place + size, place)
        able = packed.selected & (others > 0)
        ids = packed.inputs[IDS].clone()
        ids[able] = pool[place[able]]
        return _with_ids(packed, ids)


class BertOp(Selecting):
    """Mask, replace by a uniform id, or keep: 80, 10 and 10 % of the selected positions."""

    name = "bert-op"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.proportions = _proportions(binding, self.name)
        self.mask_id = _mask_id(binding, self.name)
        self.replaceable = _replaceable(binding, self.name)

    def changed(self, packed: Packed, generator: Generator) -> Packed:
        """Each position is masked, replaced or kept by a draw of its own."""
        draw = torch.rand(len(packed.special), generator=generator)
        return self._fates(packed, draw, generator)

    def _fates(self, packed: Packed, draw: Tensor, generator: Generator) -> Packed:
        """`draw` [N] in [0, 1) decides between mask, random id and keep."""
        masked, random, _ = self.proportions
        ids = packed.inputs[IDS]
        other = _uniform_ids(self.replaceable, len(ids), generator)
        new = torch.where(draw < masked + random, other, ids)
        new = torch.where(draw < masked, self.mask_id, new)
        return _with_ids(packed, torch.where(packed.selected, new, ids))


class Mixed(BertOp):
    """`BertOp` whose proportions follow the learned weights of ``mask``, ``replace`` and ``no-op``.

    They begin with the option ``proportions``. Transforms that are not in the run have not learned anything
    and keep their share of the beginning.
    """

    name = "mixed"
    parts = ("mask", "replace", "no-op")

    def weighted(self, logits: Mapping[str, float]) -> Mixed:
        """A new one with p_i ∝ proportions_i · exp(logit of part i), which is how the search weighs primitives.

        :param logits: the factors W_T of the run's transforms, by name.
        """
        shares = [
            share * math.exp(logits.get(part, 0.0))
            for part, share in zip(self.parts, self.proportions, strict=True)
        ]
        masked, random, keep = (share / sum(shares) for share in shares)
        new = copy(self)
        new.proportions = (masked, random, keep)
        return new


class SpanMask(BertOp):
    """Contiguous spans of words, each masked, replaced or kept as a whole (SpanBERT, §3.1)."""

    name = "span-mask"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.whole_words = bool(binding.options.get("whole_words", True))
        self.p = float(binding.options.get("p", 0.2))
        self.longest = int(binding.options.get("longest", 10))
        if not 0 < self.p < 1 or self.longest < 1:
            raise ConfigError(
                f"[primitives.{self.name}]: expected p between 0 and 1 and longest at least 1, "
                f"found p = {self.p} and longest = {self.longest}"
            )

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        """Select spans; the draw of a span's first unit decides for all of it."""
        selected, spans = select_spans(
            packed, self.rate, self.whole_words, self.p, self.longest, generator
        )
        draw = torch.rand(len(selected), generator=generator)
        fate = torch.where(selected, draw[spans.clamp(min=0)], draw)
        return self._fates(attrs.evolve(packed, selected=selected), fate, generator)


class NoiseEmbeddings(Selecting):
    """Noise on the input embeddings of selected positions; the ids stay as they are.

    The standard deviation is `std` times the root mean square of the encoder's embedding matrix, so
    that 1 means noise as strong as the signal for every encoder. Uniform noise has the same one.
    """

    name = "noise-embeddings"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.noise = binding.options.get("noise", "gaussian")
        std = binding.options.get("std", 1.0)
        if self.noise not in NOISES or isinstance(std, str) or not std > 0:
            raise ConfigError(
                f"[primitives.{self.name}]: expected noise to be one of {', '.join(NOISES)} and "
                f"std over 0, found noise = {self.noise!r} and std = {std!r}"
            )
        backbone = backbone_of(binding, self.name, "vocabulary_head")
        matrix = backbone.vocabulary_head(tied=True).decoder_weight.detach()
        self.std = float(std) * float(matrix.double().square().mean().sqrt())
        self.width = matrix.shape[1]

    def changed(self, packed: Packed, generator: Generator) -> Packed:
        shape = (int(packed.selected.sum()), self.width)
        if self.noise == "gaussian":
            drawn = torch.randn(shape, generator=generator) * self.std
        else:
            bound = self.std * math.sqrt(3)  # uniform on (−a, a) has the variance a² / 3
            drawn = (2 * torch.rand(shape, generator=generator) - 1) * bound
        noise = torch.zeros(len(packed.special), self.width)
        noise[packed.selected] = drawn
        return attrs.evolve(packed, noise=noise)


class Cutoff(Selecting):
    """Selected positions have a zero for their input embedding; the ids stay as they are (Shen et al., 2020).

    Option ``cut``: ``span``, one span of ``rate`` of each row's tokens at a uniform place (their span cutoff), or
    ``token``, so many single ones (their token cutoff). Special positions inside a span stay. The token's embedding is
    set to zero; the position's, which the encoder adds, still says that something stands there.
    """

    name = "cutoff"

    def __init__(self, binding: Binding) -> None:
        super().__init__(binding)
        self.cut = binding.options.get("cut", "span")
        if self.cut not in CUTS:
            raise ConfigError(
                f"[primitives.{self.name}] cut: expected one of {', '.join(CUTS)}, found {self.cut!r}"
            )

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        """Select a span, or single tokens, and drop their embeddings."""
        if self.cut == "token":
            selected = select(packed, self.rate, self.whole_words, generator)
        else:
            selected = self._span(packed, generator)
        return attrs.evolve(packed, selected=selected, dropped=selected)

    def _span(self, packed: Packed, generator: Generator) -> Tensor:
        """[N] bool: in each row one run of units, as many as its budget."""
        found, rows = units(packed, self.whole_words), len(packed.lengths)
        wanted = budgets(found.row_of, rows, self.rate)
        counts = torch.bincount(found.row_of, minlength=rows)
        draw = torch.rand(rows, generator=generator, dtype=torch.float64)
        first = counts.cumsum(0) - counts + (draw * (counts - wanted + 1)).long()
        place = torch.arange(len(found.row_of))
        first, wanted = first[found.row_of], wanted[found.row_of]
        return found.spread((place >= first) & (place < first + wanted))


class Delete(Selecting):
    """Drops selected positions (or words).

    What is left has no selection (the selected are gone) and other positions than the text had. One
    unit of each row always stays, so that no row loses all that it says.
    """

    name = "delete"

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        found = units(packed, self.whole_words)
        rows = len(packed.lengths)
        counts = torch.bincount(found.row_of, minlength=rows)
        wanted = budgets(found.row_of, rows, self.rate).minimum((counts - 1).clamp(min=0))
        return kept(packed, ~found.spread(choose(found.row_of, wanted, generator)))


def kept(packed: Packed, keep: Tensor) -> Packed:
    """The positions where `keep` ([N] bool) holds, everything that is per position cut alike."""

    def cut(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[keep]

    lengths = torch.bincount(packed.row_of[keep], minlength=len(packed.lengths))
    by_row = torch.tensor_split(keep, packed.offsets[1:-1])
    return attrs.evolve(
        packed,
        inputs={name: value[keep] for name, value in packed.inputs.items()},
        original={name: value[keep] for name, value in packed.original.items()},
        special=packed.special[keep],
        marks={name: value[keep] for name, value in packed.marks.items()},
        offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        selected=packed.selected[keep],
        labels=[_cut_label(v, k) for v, k in zip(packed.labels, by_row, strict=True)],
        proposals=cut(packed.proposals),
        noise=cut(packed.noise),
        dropped=cut(packed.dropped),
        order=cut(packed.order),
    )


def _cut_label(label: Any, keep: Tensor) -> Any:
    """The labels of token tasks are per position ([T] tensors); all others concern the row."""
    if isinstance(label, Tensor) and label.shape == keep.shape:
        return label[keep]
    return label


def _with_ids(packed: Packed, ids: Tensor) -> Packed:
    return attrs.evolve(packed, inputs={**packed.inputs, IDS: ids})


def _uniform_ids(replaceable: Tensor, count: int, generator: Generator) -> Tensor:
    return replaceable[torch.randint(len(replaceable), (count,), generator=generator)]


def _mask_id(binding: Binding, primitive: str) -> int:
    return int(backbone_of(binding, primitive, "mask_id").mask_id)


def _replaceable(binding: Binding, primitive: str) -> Tensor:
    """[V'] ids that may stand for another token."""
    ids: Tensor = backbone_of(binding, primitive, "replaceable").replaceable
    return ids


def _proportions(binding: Binding, primitive: str) -> tuple[float, float, float]:
    given: Sequence[Any] = binding.options.get("proportions", (0.8, 0.1, 0.1))
    numbers = [v for v in given if isinstance(v, int | float) and v >= 0]
    if len(numbers) != 3 or len(given) != 3 or not math.isclose(sum(numbers), 1, abs_tol=1e-6):
        raise ConfigError(
            f"[primitives.{primitive}] proportions: expected three shares (mask, replace, keep) "
            f"that sum to 1, found {list(given)}"
        )
    masked, random, keep = map(float, numbers)
    return masked, random, keep
