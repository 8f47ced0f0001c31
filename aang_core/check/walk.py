"""Show what an objective does. In: a bound objective. Out: `Walk`, a few real rows taken through its four stages.

The walk observes everything and assumes nothing. A mark on each token shows where the transform moves it. Changed
tokens show what the target is. The gradient of the loss shows what the loss reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from aang_core.batch.packing import BoundObjective, Piece, pack, row_rules
from aang_core.batch.protocols import Backbone
from aang_core.batch.rows import Hidden, Origin, Packed, Row
from aang_core.check.sanity import SanityWarning, copied_positions, findings, visible_targets
from aang_core.randomness import generator

_PLACE = "inspection:place"
_ROUNDING = 1e-3
_SHARES = 3  # of the likeliest answers that are shown


@attrs.frozen(kw_only=True)
class WalkedTarget:
    """One target.

    :param reads: the positions in its row whose states the output names for it; none for a target of a whole row.
    :param rows: the rows that a target of whole rows is about, the asking one first; else none.
    :param about: the position in its row whose token is to be predicted, or None where the target is no token.
    :param value: what is to be predicted, for people.
    :param visible: whether what it reads can see the answer.
    """

    reads: tuple[int, ...]
    rows: tuple[int, ...]
    about: int | None
    value: str
    visible: bool


@attrs.frozen(eq=False, kw_only=True)
class WalkedRow:
    """One row on its way; T positions as they are shown to the encoder.

    :param answer: what the data says of the row, for people; empty where it says nothing.
    :param before: the tokens that were drawn.
    :param shown: [T] the tokens after the transform.
    :param came_from: [T] each position's place in `before`; −1 where the transform made it.
    :param changed: [T] whether another token is shown than the original; `noisy`: whether noise covers it;
        `dropped`: whether its input embedding is zero.
    :param allowed: [T, T] bool, row i: what position i attends to.
    :param read: the positions whose states the loss really depends on.
    :param drawn, drawn_shown: lines of a picture of the row as it was drawn and as it is shown, where the encoder has
        pictures of its inputs (`picture`); else none.
    """

    origin: Origin
    answer: str
    before: tuple[str, ...]
    shown: tuple[str, ...]
    came_from: tuple[int, ...]
    special: tuple[bool, ...]
    selected: tuple[bool, ...]
    changed: tuple[bool, ...]
    noisy: tuple[bool, ...]
    dropped: tuple[bool, ...]
    allowed: Tensor
    targets: tuple[WalkedTarget, ...]
    read: tuple[int, ...]
    drawn: tuple[str, ...] = ()
    drawn_shown: tuple[str, ...] = ()

    @property
    def removed(self) -> tuple[int, ...]:
        """The places in `before` that are shown no more."""
        kept = set(self.came_from)
        return tuple(place for place in range(len(self.before)) if place not in kept)


@attrs.frozen(eq=False, kw_only=True)
class Walk:
    """An objective seen at work.

    :param layout: what its rows look like: the kind, and the question that is asked of them.
    :param findings: what makes the objective pointless on this data.
    """

    objective: str
    layout: str
    rows: tuple[WalkedRow, ...]
    findings: tuple[SanityWarning, ...]

    def as_mapping(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the attention rule as rows of 0 and 1."""
        rows = [
            {
                **attrs.asdict(row, filter=attrs.filters.exclude("allowed", "targets")),
                "allowed": row.allowed.int().tolist(),
                "targets": [attrs.asdict(target) for target in row.targets],
            }
            for row in self.rows
        ]
        return {
            "objective": self.objective,
            "layout": self.layout,
            "rows": rows,
            "warnings": [attrs.asdict(finding) for finding in self.findings],
        }


def walk(objective: BoundObjective, backbone: Backbone, rows: int = 1, seed: int = 0) -> Walk:
    """Take real rows through the four stages.

    :param rows: how many at least; the output may need more (pairs of neighbours come in twos).
    :raises AangError: where the data cannot give such rows.
    """
    found = findings(objective, seed)
    layout = objective.output.layout
    count = objective.need.at_least(rows)
    empty = any(finding.kind == "no-rows" for finding in found)
    drawn = [] if empty else objective.source.draw(layout, count, generator(seed, "walk"))
    return Walk(
        objective=objective.id,
        layout=" of ".join(filter(None, (layout.kind, layout.relation))),
        rows=_walked(objective, backbone, drawn, seed) if drawn else (),
        findings=found,
    )


def pieces(backbone: Backbone, inputs: Mapping[str, Tensor]) -> tuple[str, ...]:
    """[T] inputs for people: the encoder's own words for them (`pieces`), or the numbers of the first input."""
    first = next(iter(inputs.values()))
    speak = getattr(backbone, "pieces", None)
    if speak is not None:
        return tuple(speak(first))
    if first.ndim > 1 or first.is_floating_point():
        return tuple(f"#{place}" for place in range(len(first)))
    return tuple(map(str, first.tolist()))


def picture(backbone: Backbone, inputs: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The lines of the encoder's own picture of a row's first input (`picture`), where it has one."""
    draw = getattr(backbone, "picture", None)
    return () if draw is None else tuple(draw(next(iter(inputs.values()))))


def _walked(
    objective: BoundObjective, backbone: Backbone, drawn: Sequence[Row], seed: int
) -> tuple[WalkedRow, ...]:
    packed = pack(drawn)
    marks = {**packed.marks, _PLACE: packed.positions}
    draw = generator(seed, "walk-transform")
    packed = objective.transform.apply(attrs.evolve(packed, marks=marks), draw)
    packed, rules = row_rules(objective.representation, packed, draw)
    piece = Piece(packed=packed, rules=rules, targets=objective.output.targets(packed))
    targets = _targets(objective, backbone, piece)
    read = _read(objective, backbone, piece, seed)
    return tuple(
        _row(objective, backbone, row, number, piece, targets[number], read)
        for number, row in enumerate(drawn)
    )


def _row(
    objective: BoundObjective,
    backbone: Backbone,
    row: Row,
    number: int,
    piece: Piece,
    targets: tuple[WalkedTarget, ...],
    read: Tensor,
) -> WalkedRow:
    packed = piece.packed
    own = slice(int(packed.offsets[number]), int(packed.offsets[number + 1]))
    inputs = {name: value[own] for name, value in packed.inputs.items()}
    length = own.stop - own.start
    place = packed.marks.get(_PLACE, torch.full((len(packed.special),), -1))
    noise, dropped = packed.noise, packed.dropped
    return WalkedRow(
        origin=row.origin,
        answer=_answer(objective, row),
        before=pieces(backbone, row.inputs),
        shown=pieces(backbone, inputs),
        came_from=tuple(place[own].tolist()),
        special=tuple(packed.special[own].tolist()),
        selected=tuple(packed.selected[own].tolist()),
        changed=tuple(_changed(packed)[own].tolist()),
        noisy=(False,) * length if noise is None else tuple((noise[own] != 0).any(-1).tolist()),
        dropped=(False,) * length if dropped is None else tuple(dropped[own].tolist()),
        allowed=piece.rules[number].matrix(length),
        targets=targets,
        read=tuple(read[own].nonzero().flatten().tolist()),
        drawn=picture(backbone, row.inputs),
        drawn_shown=picture(backbone, inputs),
    )


def _changed(packed: Packed) -> Tensor:
    """[N] whether any input differs from the original one."""
    changed = torch.zeros_like(packed.special)
    for name, value in packed.inputs.items():
        changed |= (value != packed.original[name]).reshape(len(changed), -1).any(-1)
    return changed


def _answer(objective: BoundObjective, row: Row) -> str:
    if objective.output.layout.relation == "label" and row.label is not None:
        return _named(objective, row.label)
    return "" if row.structure is None else _named(objective, row.structure)


def _named(objective: BoundObjective, value: Any) -> str:
    """A value in the output's own words, where it has such (`names`)."""
    names: Sequence[str] = getattr(objective.output, "names", ())
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, int) and 0 <= value < len(names):
        return str(names[value])
    if isinstance(value, list) and len(value) == len(names) and set(value) <= {0, 1}:
        return " + ".join(str(n) for n, v in zip(names, value, strict=True) if v) or "none"
    if isinstance(value, list) and len(value) == len(names) > 0 and abs(sum(value) - 1) < _ROUNDING:
        likeliest = sorted(range(len(names)), key=lambda i: -value[i])[:_SHARES]
        return ", ".join(f"{names[i]} {value[i]:.2f}" for i in likeliest)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _targets(
    objective: BoundObjective, backbone: Backbone, piece: Piece
) -> list[tuple[WalkedTarget, ...]]:
    """By row, what is to be predicted there; a target of several rows stands at the first of them."""
    packed, targets = piece.packed, piece.targets
    found: list[list[WalkedTarget]] = [[] for _ in piece.rules]
    copied = copied_positions(objective.output, packed)
    visible = visible_targets(objective.output, piece)
    in_stream = targets.level == "position"
    for m in range(len(targets)):
        index = targets.index[m].reshape(-1).tolist()
        row = int(packed.row_of[index[0]]) if in_stream else index[0]
        start = int(packed.offsets[row])
        place = int(copied[m])
        name = next(iter(packed.inputs))
        spoken = (
            pieces(backbone, {name: targets.value[m : m + 1]})[0]
            if place >= 0
            else _named(objective, targets.value[m].tolist())
        )
        found[row].append(
            WalkedTarget(
                reads=tuple(i - start for i in index) if in_stream else (),
                rows=() if in_stream else tuple(index),
                about=place - start if place >= 0 else None,
                value=spoken,
                visible=bool(visible[m]),
            )
        )
    return [tuple(each) for each in found]


def _read(objective: BoundObjective, backbone: Backbone, piece: Piece, seed: int) -> Tensor:
    """[N] bool: the states that the loss depends on, by its gradient at random states."""
    count = len(piece.packed.special)
    if not len(piece.targets):
        return torch.zeros(count, dtype=torch.bool)
    parameter = next(backbone.body.parameters())
    states = torch.randn(count, backbone.hidden_size, generator=generator(seed, "walk-states"))
    states = states.to(parameter.device, parameter.dtype).requires_grad_()
    head = objective.output.head().eval()
    hidden = Hidden(states=states, offsets=piece.packed.offsets)
    losses = objective.output.losses(head, hidden, piece.targets.to(parameter.device))
    (gradient,) = torch.autograd.grad(losses.sum(), states)
    return (gradient != 0).any(-1).cpu()
