"""Start-up probes: does an encoder follow its attention rules, and does packing keep its results the same?

Families differ in how they use an attention function, positions and padding, and some silently ignore their arguments.
So names decide nothing here. The probes encode a few short rows of random tokens, change one token, and compare what
changes with what may change. Method: perturbation and parity, each against the encoder's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aang_core.batch.rows import Hidden
from aang_core.batch.stream import FusedBatch, RowRule

Encode = Callable[[FusedBatch], Hidden]
_LENGTHS = (7, 12, 5)


def tolerance(dtype: torch.dtype) -> float:
    """Largest deviation that rounding explains, relative to the largest value."""
    return 1e-4 if torch.finfo(dtype).bits >= 32 else 5e-2


def row_lengths(config: Any) -> list[int]:
    """A few short rows, and one longer than the window of local layers where there are such."""
    window = getattr(config, "sliding_window", None) or 0
    room = int(getattr(config, "max_position_embeddings", 64)) - 8
    return [min(length, room) for length in (*_LENGTHS, *([2 * window + 5] if window else []))]


def draw_rows(pool: Tensor, lengths: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Rows of random tokens out of `pool` [V'], each [T]."""
    return [pool[torch.randint(len(pool), (length,), generator=generator)] for length in lengths]


def batch_of(rows: Sequence[Tensor], rules: Sequence[RowRule]) -> FusedBatch:
    """Rows of ids [T] as a batch."""
    offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    return FusedBatch(
        inputs={"input_ids": torch.cat(list(rows))}, offsets=offsets, rules=tuple(rules)
    )


@torch.no_grad()
def parity(encode: Encode, rows: Sequence[Tensor], own: Sequence[Tensor]) -> float:
    """Largest difference between rows encoded together, all unmasked, and each alone, relative to the largest value.

    :param own: for every row, the encoder's own answer [T, H].
    """
    alone = torch.cat(list(own))
    together = encode(batch_of(rows, [RowRule()] * len(rows))).states
    return float((together - alone).abs().max() / alone.abs().max())


def transitive_rules(lengths: Sequence[int], generator: torch.Generator) -> list[RowRule]:
    """Left-to-right, right-to-left and random orders in turn.

    What any of these hides stays hidden through all layers: who sees j sees also what j sees.
    """
    rules = []
    for index, length in enumerate(lengths):
        rank = torch.randperm(length, generator=generator)
        matrix = RowRule("matrix", rank[None, :] <= rank[:, None])
        rules.append((RowRule("causal"), RowRule("anticausal"), matrix)[index % 3])
    return rules


@torch.no_grad()
def leaks(
    encode: Encode, rows: Sequence[Tensor], rules: Sequence[RowRule], pool: Tensor
) -> list[str]:
    """Change one token in every row in turn: the positions that moved and must not, as ``row r: i sees j``."""
    before = encode(batch_of(rows, rules))
    found = []
    scale = float(before.states.abs().max()) * torch.finfo(before.states.dtype).eps * 100
    for row, ids in enumerate(rows):
        place = len(ids) // 2
        other = pool[(pool != ids[place]).nonzero()[0, 0]]
        changed = torch.where(torch.arange(len(ids)) == place, other, ids)
        after = encode(batch_of([*rows[:row], changed, *rows[row + 1 :]], rules))
        moved = ((after.states - before.states).abs().amax(-1) > scale).cpu()
        start = int(before.offsets[row])
        may = torch.zeros_like(moved)
        may[start : start + len(ids)] = _column(rules[row], len(ids), place)
        found += [
            f"row {row}: {int(i) - start} sees {place}" for i in (moved & ~may).nonzero()[:, 0]
        ]
    return found


def _column(rule: RowRule, length: int, place: int) -> Tensor:
    """[T] bool: which positions see `place` under a rule."""
    return rule.matrix(length)[:, place]


def used_parameters(output: Tensor) -> set[int]:
    """The ids of the parameters that `output` depends on, read off its autograd graph."""
    seen: set[object] = set()
    found: set[int] = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return found
