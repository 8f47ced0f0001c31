"""Warnings before training. In: bound objectives. Out: reasons why an objective is pointless on this data.

Nothing here knows an objective by its name. Each is drawn, transformed and given its targets as in a step, and the
result is tested. To find which position a target copies, the positions are changed: the targets that change with them
are copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from aang_core.batch.packing import BoundObjective, Piece, prepare
from aang_core.batch.protocols import BoundOutput, asks_teacher, no_op
from aang_core.batch.rows import Packed, Targets
from aang_core.batch.stream import RowRule
from aang_core.config.settings import RunConfig
from aang_core.randomness import generator
from aang_core.registry.legality import Illegal
from aang_core.registry.records import Space
from aang_core.registry.registry import Registry
from aang_core.train.resolve import bind_objectives, load_backbone, resolve, seed_task

ROWS = 64
"""Rows that an objective is tested on."""

SHARE = 0.5
"""From this share of the targets (or rows) on, what happens to them is the objective's nature and no accident:
BERT's corruption keeps a tenth of its targets on purpose."""

KINDS: Mapping[str, str] = {
    "no-rows": "have no rows",
    "no-target": "have no target",
    "target-visible": "show their target",
    "constant-target": "have a constant target",
    "isolated-rows": "attend to nothing",
}
"""What can be wrong, worst first, and how a sentence about several objectives says it."""

_LISTED = 3


@attrs.frozen
class SanityWarning:
    """One warning. `kind`: one of `KINDS`; `text`: what was seen, for people."""

    kind: str
    text: str


def findings(
    objective: BoundObjective, seed: int = 0, rows: int = ROWS
) -> tuple[SanityWarning, ...]:
    """Test one objective on `rows` of its own rows; empty where nothing is wrong."""
    if not len(objective.source):
        return (SanityWarning("no-rows", "its data source holds no rows"),)
    count = objective.need.at_least(rows)
    piece = prepare(objective, count, generator(seed, "warnings"))
    if not len(piece.targets):
        return (SanityWarning("no-target", f"{count} rows gave no target"), *_isolated(piece))
    found = [*_visible(objective.output, piece)]
    output = objective.output
    # Pairs and groups are answered by the rows beside them, and a teacher fills in its targets only in the step.
    if output.pointwise and not asks_teacher(output):
        found += _constant(piece.targets)
    return (*found, *_isolated(piece))


def findings_of(
    objectives: Iterable[BoundObjective], seed: int = 0, rows: int = ROWS
) -> dict[str, tuple[SanityWarning, ...]]:
    """By objective id; every objective has an entry."""
    return {objective.id: findings(objective, seed, rows) for objective in objectives}


def warnings_of(
    config: RunConfig,
    space: Space,
    registry: Registry,
    progress: Callable[[str, int, int], None] = no_op,
    rejected: Callable[[Illegal], None] = no_op,
) -> dict[str, list[str]]:
    """By objective id, what makes the legal objectives of a space pointless on a configuration's task.

    :param progress: as in `Binding`; some data sources have to be made first, which takes minutes.
    :param rejected: as in `bind_objectives`.
    :raises AangError: where task, data or encoder cannot be had, or no objective is legal.
    """
    resolved = resolve(attrs.evolve(config, method="finetune"), registry)
    resolved = attrs.evolve(resolved, space=space)
    seed = config.seeds[0]
    backbone = load_backbone(resolved, seed)
    task = seed_task(resolved, seed)
    objectives = bind_objectives(
        resolved, task, backbone, seed, progress=progress, rejected=rejected
    )
    found = findings_of(objectives, seed)
    return {name: [finding.text for finding in each] for name, each in found.items()}


def summary(found: Mapping[str, Sequence[SanityWarning]]) -> str:
    """One line about all objectives, or nothing where there is nothing to say."""
    parts = []
    for kind, phrase in KINDS.items():
        ids = [name for name, each in found.items() if any(f.kind == kind for f in each)]
        if ids:
            more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
            parts.append(
                f"{len(ids)} of {len(found)} objectives {phrase}: {', '.join(ids[:_LISTED])}{more}"
            )
    return "; ".join(parts)


def copied_positions(output: BoundOutput, packed: Packed) -> Tensor:
    """[M] the stream position whose input each target repeats; −1 where a target is no such copy.

    The positions of every row are renamed so that each has a code of its own, made of values that the
    inputs really hold; a target that follows the renaming, whichever it is, is a copy.
    """
    targets = output.targets(packed)
    found = torch.full((len(targets),), -1)
    if not len(targets):
        return found
    for name, value in packed.original.items():
        if _alike(value, targets.value):
            copies = _copies_of(name, output, packed, targets)
            found = torch.where(found < 0, copies, found)
    return found


def visible_targets(output: BoundOutput, piece: Piece) -> Tensor:
    """[M] bool: does a state that the loss reads depend on a position that still shows the target?

    A position depends on all that its rule reaches in any number of layers. A position under noise, or one whose
    embedding is dropped, does not show what it holds.
    """
    packed, targets = piece.packed, piece.targets
    copied = copied_positions(output, packed)
    shown = torch.zeros(len(targets), dtype=torch.bool)
    known = copied >= 0
    if not bool(known.any()):
        return shown
    place = copied.clamp(min=0)
    for value in packed.inputs.values():
        if _alike(value, targets.value):
            shown |= known & _equal(value[place], targets.value)
    if packed.noise is not None:
        shown &= ~(packed.noise[place] != 0).any(-1)
    if packed.dropped is not None:
        shown &= ~packed.dropped[place]
    if targets.level != "position":
        return shown
    index, rows = targets.index.reshape(len(targets), -1), packed.row_of[place]
    for row in rows[shown].unique().tolist():
        members = (shown & (rows == row)).nonzero().flatten()
        start, length = int(packed.offsets[row]), int(packed.lengths[row])
        reading, asked = index[members] - start, place[members, None] - start
        inside = (reading >= 0) & (reading < length)
        reach = reachable(piece.rules[row], length)
        sees = reach[reading.clamp(0, length - 1), asked] & inside
        shown[members] = sees.any(-1)
    return shown


def reachable(rule: RowRule, length: int) -> Tensor:
    """[T, T] bool: what each position can know of when layers follow one another (the transitive closure)."""
    reach = rule.matrix(length) | torch.eye(length, dtype=torch.bool)
    while True:
        further = (reach.float() @ reach.float()) > 0
        if further.equal(reach):
            return reach
        reach = further


def _copies_of(name: str, output: BoundOutput, packed: Packed, targets: Targets) -> Tensor:
    """[M] the positions that targets repeat of one input, as in `copied_positions`."""
    none = torch.full((len(targets),), -1)
    values = packed.original[name].unique(dim=0)
    longest, base = int(packed.lengths.max()), len(values)
    if base < 2:
        return none
    digits = max(1, math.ceil(math.log(longest, base) - 1e-9))
    row = packed.row_of[_first_reading(packed, targets)]
    place, possible = torch.zeros_like(none), torch.ones(len(targets), dtype=torch.bool)
    # one renaming more than the digits: a value that only happens to look like a code fails there
    for turn in range(digits + 1):
        power, shift = base ** (turn % digits), turn // digits
        codes = values[(packed.positions // power + shift) % base]
        answer = output.targets(_renamed(packed, name, codes))
        if len(answer) != len(targets):
            return none
        digit = _numbers_of(answer.value, values)
        possible &= digit >= 0
        digit = digit.clamp(min=0)
        if turn < digits:
            place += digit * power
        else:
            possible &= (place // power + shift) % base == digit
    possible &= place < packed.lengths[row]
    found = packed.offsets[row] + place
    held = found.clamp(max=len(packed.special) - 1)
    same = _equal(packed.original[name][held], targets.value)
    same |= _equal(packed.inputs[name][held], targets.value)
    return torch.where(possible & same, found, none)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether the entries of both, [N, …] and [M, …], are of one shape and kind, so that one may copy the other."""
    return one.shape[1:] == other.shape[1:] and one.is_floating_point() == other.is_floating_point()


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """[M] whether the entries of [M, …] and [M, …] are equal."""
    same = one == other
    return same if same.ndim == 1 else same.flatten(1).all(-1)


def _numbers_of(answers: Tensor, values: Tensor) -> Tensor:
    """[M] which of the distinct values [V, …] each answer [M, …] is; −1 where it is none."""
    if not _alike(answers, values):
        return torch.full((len(answers),), -1)
    joined = torch.cat([values, answers.to(values.dtype)])
    inverse = joined.unique(dim=0, return_inverse=True)[1]
    number = torch.full((len(joined),), -1)
    number[inverse[: len(values)]] = torch.arange(len(values))
    return number[inverse[len(values) :]]


def _renamed(packed: Packed, name: str, codes: Tensor) -> Packed:
    return attrs.evolve(
        packed, inputs={**packed.inputs, name: codes}, original={**packed.original, name: codes}
    )


def _first_reading(packed: Packed, targets: Targets) -> Tensor:
    """[M] a stream position in the row that each target belongs to."""
    first = targets.index.reshape(len(targets), -1)[:, 0]
    return first if targets.level == "position" else packed.offsets[:-1][first]


def _visible(output: BoundOutput, piece: Piece) -> list[SanityWarning]:
    share = visible_targets(output, piece).double().mean().item()
    if share < SHARE:
        return []
    text = f"{share:.0%} of its targets are in sight of the states that predict them"
    return [SanityWarning("target-visible", text)]


def _constant(targets: Targets) -> list[SanityWarning]:
    value = targets.value.reshape(len(targets), -1)
    if len(targets) < 2 or not bool((value == value[0]).all()):
        return []
    shown = f"{value[0].item():g}" if value.shape[1] == 1 else "the same"
    return [SanityWarning("constant-target", f"all of its {len(targets)} targets are {shown}")]


def _isolated(piece: Piece) -> list[SanityWarning]:
    lengths = piece.packed.lengths.tolist()
    rows = [
        bool((rule.matrix(n) & ~torch.eye(n, dtype=torch.bool)).any())
        for rule, n in zip(piece.rules, lengths, strict=True)
        if n > 1
    ]
    alone = rows.count(False)
    if not rows or alone < SHARE * len(rows):
        return []
    text = f"the positions of {alone} of {len(rows)} rows attend to nothing but themselves"
    return [SanityWarning("isolated-rows", text)]
