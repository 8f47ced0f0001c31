"""Step 5 of 9. In: objectives, row shares, a generator. Out: FusedBatch, one packed stream with its layout.

Each objective of a step is drawn, transformed and given its targets on its own (a `Piece`), by a generator of
its own; `fuse` lays the pieces end to end. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
from torch import Generator, Tensor

from aang_core.batch.checks import check_packed, check_rows, check_rule, check_targets, errors_of
from aang_core.batch.protocols import (
    BoundOutput,
    BoundRepresentation,
    BoundSource,
    BoundTransform,
    asks_teacher,
)
from aang_core.batch.row_shares import RowNeed
from aang_core.batch.rows import Packed, Row, Targets
from aang_core.batch.stream import FULL, FusedBatch, RowRule, Segment
from aang_core.errors import ConfigError

_DRAWS = 100  # until a source is taken to hold nothing but rows that must be avoided


@attrs.frozen(eq=False)
class BoundObjective:
    """An objective with its four primitives at work.

    :param makers: by stage, the primitive's name with its plugin and distribution, for messages.
    """

    id: str
    source: BoundSource
    transform: BoundTransform
    representation: BoundRepresentation
    output: BoundOutput
    makers: Mapping[str, str] = attrs.field(factory=dict)

    def who(self, stage: str) -> str:
        """What messages call the primitive of a stage."""
        return self.makers.get(stage, f"the {stage} of {self.id}")

    @property
    def need(self) -> RowNeed:
        """The rows that its output accepts."""
        return RowNeed(self.output.min_rows, self.output.row_multiple)


@attrs.frozen(eq=False)
class Piece:
    """One objective's rows of one step, ready for the encoder.

    :param asked: the rows before their transform, where the output asks the teacher.
    """

    packed: Packed
    rules: tuple[RowRule, ...]
    targets: Targets
    asked: FusedBatch | None = None


def pack_rows(rows: Sequence[Row]) -> tuple[dict[str, Tensor], Tensor]:
    """Concatenate the inputs of rows: name → [N], and the offsets [B + 1]."""
    lengths = torch.tensor([0] + [len(row) for row in rows])
    names = rows[0].inputs.keys()
    return {n: torch.cat([row.inputs[n] for row in rows]) for n in names}, lengths.cumsum(0)


def plain_batch(rows: Sequence[Row]) -> FusedBatch:
    """Unchanged rows under the full rule, without objectives: for evaluation and features."""
    inputs, offsets = pack_rows(rows)
    return FusedBatch(inputs=inputs, offsets=offsets, rules=(FULL,) * len(rows))


def pack(rows: Sequence[Row]) -> Packed:
    """Rows as one untransformed `Packed`."""
    inputs, offsets = pack_rows(rows)
    special = torch.cat([row.special for row in rows])
    structures = [row.structure for row in rows]
    weights = [row.weight for row in rows]
    return Packed(
        inputs=inputs,
        original=inputs,
        special=special,
        marks={n: torch.cat([row.marks[n] for row in rows]) for n in rows[0].marks},
        offsets=offsets,
        selected=torch.zeros_like(special),
        labels=tuple(row.label for row in rows),
        origins=tuple(row.origin for row in rows),
        structure=None if None in structures else torch.tensor(structures),
        proposals=_proposals(rows),
        weights=None if all(w == 1 for w in weights) else torch.tensor(weights),
    )


def _proposals(rows: Sequence[Row]) -> Tensor | None:
    if all(row.proposals is None for row in rows):
        return None
    none = [torch.full((len(row),), -1) for row in rows]
    return torch.cat(
        [
            row.proposals if row.proposals is not None else blank
            for row, blank in zip(rows, none, strict=True)
        ]
    )


def row_rules(
    representation: BoundRepresentation, packed: Packed, generator: Generator
) -> tuple[Packed, tuple[RowRule, ...]]:
    """Draw each row's attention rule; an order is also recorded in `Packed.order` ([N]) for outputs to read."""
    packed = attrs.evolve(packed, tag=representation.tag)
    lengths = packed.lengths.tolist()
    tag = representation.tag
    if tag == "matrix":
        matrices = [representation.allowed(n, generator) for n in lengths]
        for matrix, n in zip(matrices, lengths, strict=True):
            check_rule(tag, matrix, n)
        return packed, tuple(RowRule("matrix", matrix) for matrix in matrices)
    if tag == "order":
        ranks = [representation.order(n, generator) for n in lengths]
        for rank, n in zip(ranks, lengths, strict=True):
            check_rule(tag, rank, n)
        rules = tuple(RowRule("matrix", rank[None, :] <= rank[:, None]) for rank in ranks)
        return attrs.evolve(packed, order=torch.cat(ranks)), rules
    check_rule(tag, None, 0)
    return packed, (RowRule(tag),) * len(lengths)


def prepare(
    objective: BoundObjective,
    rows: int,
    generator: Generator,
    elapsed: float = 0.0,
    avoided: Callable[[Row], bool] | None = None,
) -> Piece:
    """Draw `rows` rows of one objective and take them through its stages.

    :param elapsed: the share of the run's steps that are done; primitives find it in `Packed.elapsed`.
    :param avoided: says of a row as it was drawn that it must not be in the step; others are drawn in its place.
    :raises PluginError: where a primitive fails or breaks its contract; it is named, with its distribution.
    """
    of = f"for {objective.id}"
    with errors_of(objective.who("data"), f"draw {of}"):
        drawn = _drawn(objective, rows, generator, avoided)
        packed = attrs.evolve(pack(drawn), elapsed=elapsed)
    with errors_of(objective.who("transform"), f"apply {of}"):
        packed = objective.transform.apply(packed, generator)
        check_packed(packed, rows)
    with errors_of(objective.who("representation"), f"its rule {of}"):
        packed, rules = row_rules(objective.representation, packed, generator)
    with errors_of(objective.who("output"), f"targets {of}"):
        targets = objective.output.targets(packed)
        check_targets(targets, packed)
    return Piece(
        packed=packed,
        rules=rules,
        targets=_weighted(targets, packed),
        asked=plain_batch(drawn) if asks_teacher(objective.output) else None,
    )


def _drawn(
    objective: BoundObjective,
    rows: int,
    generator: Generator,
    avoided: Callable[[Row], bool] | None,
) -> list[Row]:
    """Rows of an objective's source; those that belong together are avoided together.

    :raises ConfigError: where hardly any row is left.
    """
    kept: list[Row] = []
    unit = objective.need.multiple
    for _ in range(_DRAWS):
        drawn = objective.source.draw(objective.output.layout, rows, generator)
        check_rows(drawn, rows)
        if avoided is None:
            return drawn
        groups = [drawn[i : i + unit] for i in range(0, rows, unit)]
        kept += [row for group in groups if not any(map(avoided, group)) for row in group]
        if len(kept) >= rows:
            return kept[:rows]
    raise ConfigError(
        f"{objective.id}: {_DRAWS} draws of {rows} rows gave {len(kept)} whose texts are not held out for the dev "
        "gradient; set meta.dev_folds to more folds or to 0"
    )


def _weighted(targets: Targets, packed: Packed) -> Targets:
    """The weights of the rows in those of their targets (of several states, the first one's row counts)."""
    if packed.weights is None or not len(targets):
        return targets
    first = targets.index if targets.index.ndim == 1 else targets.index[:, 0]
    rows = first if targets.level == "row" else packed.row_of[first]
    own = packed.weights[rows]
    return attrs.evolve(targets, weight=own if targets.weight is None else targets.weight * own)


def fuse(pieces: Sequence[tuple[int, Piece]]) -> FusedBatch:
    """Lay pieces end to end. Each comes with its number in the step (0 is the end-task)."""
    segments, row, start = [], 0, 0
    for number, piece in pieces:
        rows, tokens = len(piece.rules), int(piece.packed.offsets[-1])
        segments.append(Segment(number, row, row + rows, start, start + tokens, len(piece.targets)))
        row, start = row + rows, start + tokens
    packs = [piece.packed for _, piece in pieces]
    return FusedBatch(
        inputs={n: torch.cat([p.inputs[n] for p in packs]) for n in packs[0].inputs},
        offsets=torch.cat(
            [torch.zeros(1, dtype=torch.long), torch.cat([p.lengths for p in packs]).cumsum(0)]
        ),
        rules=tuple(rule for _, piece in pieces for rule in piece.rules),
        segments=tuple(segments),
        targets=tuple(piece.targets for _, piece in pieces),
        noise=_noise(packs),
        dropped=_dropped(packs),
        asked=tuple(p.asked for _, p in pieces) if any(p.asked for _, p in pieces) else (),
    )


def _noise(packs: Sequence[Packed]) -> Tensor | None:
    width = next((p.noise.shape[1] for p in packs if p.noise is not None), None)
    if width is None:
        return None
    return torch.cat(
        [p.noise if p.noise is not None else torch.zeros(len(p.special), width) for p in packs]
    )


def _dropped(packs: Sequence[Packed]) -> Tensor | None:
    if all(p.dropped is None for p in packs):
        return None
    return torch.cat(
        [p.dropped if p.dropped is not None else torch.zeros_like(p.special) for p in packs]
    )
