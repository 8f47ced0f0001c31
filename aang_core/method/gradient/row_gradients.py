"""Gradients of embedding tables by the rows in use.

A text reads a few hundred rows of a vocabulary. A dense gradient [V, H] of the table is zero elsewhere, and each
pass over it (forming, clipping, dots) costs the same as if it were not. Inside `by_rows` autograd gives it as a sparse
tensor, ids [R] and their rows [R, H]. The same id may occur more than once until `coalesced`. Where all rows have a
gradient, as under a tied decoder, the sum is dense again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def tables_of(body: nn.Module) -> list[nn.Embedding]:
    """Its embeddings, but for those that change a row when they read it (``max_norm``), with or without a gradient."""
    found = [module for module in body.modules() if isinstance(module, nn.Embedding)]
    return [table for table in found if table.max_norm is None]


@contextmanager
def by_rows(body: nn.Module) -> Iterator[None]:
    """Inside, forward passes make the gradients of an encoder's embedding tables sparse.

    On the CPU alone: on other devices a step would have to wait for the numbers of the rows.
    """
    tables = tables_of(body)
    before = [table.sparse for table in tables]
    try:
        for table in tables:
            table.sparse |= table.weight.device.type == "cpu" and not table.scale_grad_by_freq
        yield
    finally:
        for table, sparse in zip(tables, before, strict=True):
            table.sparse = sparse


def of_rows(ids: Tensor, rows: Tensor, size: int) -> Tensor:
    """[V, H], sparse, from rows [R, H] by ids [R] that may repeat; V is `size`."""
    shape = (size, rows.shape[1])
    return torch.sparse_coo_tensor(ids[None], rows, shape, check_invariants=False)


def coalesced(gradient: Tensor) -> Tensor:
    """The same, every row of a sparse gradient once, in the order of ids."""
    return gradient.coalesce() if gradient.is_sparse else gradient


def coalesce(parameters: Iterable[Tensor]) -> None:
    """Make every ``.grad`` of them `coalesced`."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = coalesced(parameter.grad)


def values(gradient: Tensor) -> Tensor:
    """What of a coalesced gradient may differ from zero: its rows [R, H], or all of a dense one; in its memory."""
    return gradient.values() if gradient.is_sparse else gradient


def added(left: Tensor, right: Tensor) -> Tensor:
    """left + right, of which either, both or none are sparse."""
    return right + left if left.is_sparse else left + right


def rows_at(gradient: Tensor, ids: Tensor) -> Tensor:
    """[N, H] the rows of a coalesced gradient at ids [N]."""
    if not gradient.is_sparse:
        return gradient[ids]
    known, rows = gradient.indices()[0], gradient.values()
    if len(known) == 0:
        return rows.new_zeros(len(ids), gradient.shape[1])
    place = torch.searchsorted(known, ids).clamp_(max=len(known) - 1)
    return rows[place] * (known[place] == ids)[:, None]


def inner(left: Tensor, right: Tensor) -> Tensor:
    """⟨left, right⟩ of two coalesced gradients of one parameter, in their dtype."""
    if right.is_sparse and not left.is_sparse:
        left, right = right, left
    if left.is_sparse:
        left, right = left.values(), rows_at(right, left.indices()[0])
    return torch.dot(left.flatten(), right.flatten())
