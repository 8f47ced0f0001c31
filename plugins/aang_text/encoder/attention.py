"""Packed attention: one token stream, each row under its own rule, without padding between rows.

`LengthGroups` are made once a batch. In every layer the stream is gathered once into groups of rows of nearly equal
length, each group goes through ``scaled_dot_product_attention`` with its rows' rules as an additive mask, and
the result is gathered back into stream order. Shapes: N packed positions, A attention heads, D head width,
R rows of a group, L its longest row, S gathered positions (N and the little padding inside the groups).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aang_core.batch.stream import RowRule, directed
from aang_core.errors import ModelError

NAME = "aang_packed"
"""The name under which transformers finds `packed_attention`."""

_CODES = {"full": 0, "causal": 1, "anticausal": 2, "matrix": 3}


def register() -> None:
    """Make the packed attention known to transformers. Doing it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, no_mask)


def no_mask(*_: Any, **__: Any) -> None:  # transformers' signature; the plan holds the masks
    """The mask that transformers would build is [N, N]; the plan holds smaller ones."""


@attrs.frozen(eq=False)
class Group:
    """Rows of nearly equal length.

    :param lengths: of the R rows.
    :param rules: of the R rows.
    """

    lengths: tuple[int, ...]
    rules: tuple[RowRule, ...]

    @property
    def longest(self) -> int:
        """L."""
        return self.lengths[-1]

    @property
    def causal(self) -> bool:
        """Whether one flag says it all: rows end where the padding begins, which no query looks ahead to."""
        return all(rule.tag == "causal" for rule in self.rules)

    def permitted(self, window: int | None) -> Tensor | None:
        """[R, 1, L or 1, L] bool, the keys that each query may see; None where all see all. On the CPU."""
        length = self.longest
        place = torch.arange(length)
        key = place[None, :] < torch.tensor(self.lengths)[:, None]
        reach = length if window is None else window - 1  # how far a layer looks, as it passes it
        near = reach < length - 1
        if not near and all(rule.tag == "full" for rule in self.rules):
            return None if self.lengths[0] == length else key[:, None, None, :]
        ahead = place[None, :] - place[:, None]
        # A matrix covers its own row; what it leaves open behind the row's end, `key` closes.
        kinds = torch.stack(
            [directed("full" if tag == "matrix" else tag, length) for tag in _CODES]
        )
        rule = kinds[torch.tensor([_CODES[rule.tag] for rule in self.rules])]
        for row, given in enumerate(self.rules):
            if given.allowed is not None:
                size = self.lengths[row]
                rule[row, :size, :size] = given.allowed
        if near:
            rule &= ahead.abs() <= reach
        # Queries behind a row's end are dropped later; they see the row so that no softmax is empty.
        return (key[:, None, :] & (rule | ~key[:, :, None]))[:, None]


@attrs.frozen(eq=False)
class LengthGroups:
    """How one batch's stream is grouped.

    :param gather: [S] the stream position of every place in the groups; padding repeats its row's last position.
    :param scatter: [N] the place of every stream position.
    :param masks: additive masks by (group, window, dtype), made when first asked for: layers share them.
    """

    groups: tuple[Group, ...]
    gather: Tensor
    scatter: Tensor
    masks: dict[tuple[int, int | None, torch.dtype], Tensor | None] = attrs.field(factory=dict)

    def mask(self, index: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """The additive mask of one group, `finfo.min` where a key is hidden."""
        key = (index, window, dtype)
        if key not in self.masks:
            permitted = self.groups[index].permitted(window)
            if permitted is not None:
                hidden = ~permitted.to(self.gather.device, non_blocking=True)
                blank = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
                permitted = blank.masked_fill_(hidden, torch.finfo(dtype).min)
            self.masks[key] = permitted
        return self.masks[key]


def make_plan(
    lengths: Sequence[int], rules: Sequence[RowRule], device: torch.device, slack: float = 1.25
) -> LengthGroups:
    """Group the rows of a stream by length.

    :param lengths: of the B rows, in stream order.
    :param slack: a group's longest row has at most this many times the positions of its shortest, and four more.
    :raises ModelError: for a rule with an unknown tag.
    """
    unknown = sorted({rule.tag for rule in rules} - _CODES.keys())
    if unknown:
        raise ModelError(f"unknown attention rules {unknown}; this encoder knows {sorted(_CODES)}")
    size = torch.tensor(lengths, dtype=torch.long)
    starts = size.cumsum(0) - size
    order = size.argsort(stable=True).tolist()
    groups: list[list[int]] = []
    for row in order:
        if not groups or lengths[row] > slack * lengths[groups[-1][0]] + 4:
            groups.append([])
        groups[-1].append(row)
    gather = torch.cat([_places(size[rows], starts[rows]) for rows in groups])
    real = torch.cat([_real(size[rows]) for rows in groups])
    scatter = torch.empty(int(size.sum()), dtype=torch.long)
    scatter[gather[real]] = torch.arange(len(gather))[real]
    made = tuple(
        Group(tuple(lengths[row] for row in rows), tuple(rules[row] for row in rows))
        for rows in groups
    )
    return LengthGroups(made, gather.to(device), scatter.to(device))


def _real(size: Tensor) -> Tensor:
    """[R · L] bool, False on padding."""
    return (torch.arange(int(size[-1]))[None, :] < size[:, None]).flatten()


def _places(size: Tensor, starts: Tensor) -> Tensor:
    """[R · L] stream positions, each row's last one repeated behind its end."""
    place = torch.arange(int(size[-1]))[None, :].minimum(size[:, None] - 1)
    return (starts[:, None] + place).flatten()


class _Move(torch.autograd.Function):
    """``source[index]`` whose gradient is another plain gather or copy instead of a sum over equal indices.

    Exact where `back` says which result each source position went to, and where results that `back` does not
    name (padding) have no gradient: hidden keys and dropped queries have none, exactly.
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, index: Tensor, back: Tensor, unique: bool) -> Tensor:
        ctx.save_for_backward(index, back)
        ctx.unique, ctx.size = unique, source.shape[0]
        return source.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        index, back = ctx.saved_tensors
        if not ctx.unique:
            return grad.index_select(0, back), None, None, None
        spread = grad.new_zeros(ctx.size, *grad.shape[1:])
        return spread.index_copy_(0, index, grad), None, None, None


def _move(source: Tensor, index: Tensor, back: Tensor, unique: bool) -> Tensor:
    return _Move.apply(source, index, back, unique)  # type: ignore[no-untyped-call, no-any-return]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    aang_plan: LengthGroups | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """One layer's attention over [1, A, N, D]; returns [1, N, A, D].

    :raises ModelError: where the layer did not hand the plan on, or adds a bias of its own to the scores.
    """
    if aang_plan is None or attention_mask is not None:
        lost = "does not hand on the batch's layout" if aang_plan is None else "adds its own bias"
        raise ModelError(f"{type(module).__name__} {lost}; its rows cannot be packed")
    plan = aang_plan
    gathered = [_gathered(states, plan) for states in (query, key, value)]
    pieces = []
    for index, (q, k, v) in enumerate(zip(*gathered, strict=True)):
        causal = sliding_window is None and plan.groups[index].causal
        mask = None if causal else plan.mask(index, sliding_window, query.dtype)
        piece = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=causal,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        pieces.append(piece.transpose(1, 2).flatten(0, 1))
    places = torch.cat(pieces)
    return _move(places, plan.scatter, plan.gather, True)[None], None


def _gathered(states: Tensor, plan: LengthGroups) -> list[Tensor]:
    """[1, A, N, D] as one [R, A, L, D] a group."""
    stream = states[0].transpose(0, 1)
    moved = _move(stream, plan.gather, plan.scatter, False)
    sizes = [len(group.lengths) * group.longest for group in plan.groups]
    return [
        piece.unflatten(0, (len(group.lengths), group.longest)).transpose(1, 2)
        for piece, group in zip(torch.split(moved, sizes), plan.groups, strict=True)
    ]
