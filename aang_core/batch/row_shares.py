"""Share a step's auxiliary rows among its objectives, and give each loss its coefficient.

In every mode the expected coefficient of objective k is ``w_k`` (before the factor 1 − λ): either the rows
only decide how well its loss is estimated (``weight``, ``equal``), or the number of rows is the weight
(``systematic``). With the latter a space may have more objectives than a step has rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Generator, Tensor


@attrs.frozen
class RowNeed:
    """What one objective accepts: at least `minimum` rows, in groups of `multiple`."""

    minimum: int = 1
    multiple: int = 1

    @property
    def unit(self) -> int:
        """The smallest number of rows that can be used."""
        return self.at_least(self.minimum)

    def at_least(self, rows: int) -> int:
        """The smallest number of rows that can be used and is no less than `rows`."""
        return -(-max(rows, self.minimum) // self.multiple) * self.multiple


@attrs.frozen(eq=False)
class RowShares:
    """:param rows: rows of each objective; 0 leaves it out of the step.
    :param coefficients: [K] float64, what multiplies its mean loss.
    :param chances: [K] float64, with which probability it got rows.
    """

    rows: tuple[int, ...]
    coefficients: Tensor
    chances: Tensor


def share_rows(
    weights: Tensor, total: int, needs: Sequence[RowNeed], mode: str, generator: Generator
) -> RowShares:
    """Share `total` rows among objectives with these weights ([K], non-negative, sum 1).

    ``weight``: everyone gets its unit, the rest goes by weight (largest remainder), so that the sum is `total` or,
    where the units alone need more, their sum. ``equal``: the same with equal weights. ``systematic``:
    one uniform number places K intervals of length ``w_k · total / unit_k`` on a line, and every integer that an
    interval covers is one unit of rows; the expectation of the rows is exactly ``w_k · total``. ``auto`` is ``weight``
    where there are twice the rows that the units need, else ``systematic``.
    Appendix D of the paper shares the batch by weight and leaves the rounding open.
    """
    units = [need.unit for need in needs]
    if mode == "auto":
        mode = "weight" if 2 * sum(units) <= total else "systematic"
    if mode == "systematic":
        return _systematic(weights, total, units, generator)
    shares = torch.full_like(weights, 1 / len(units)) if mode == "equal" else weights
    rows = _largest_remainder(shares, total, needs)
    own = weights.double().clone()
    return RowShares(rows=rows, coefficients=own, chances=torch.ones_like(own))


def _largest_remainder(shares: Tensor, total: int, needs: Sequence[RowNeed]) -> tuple[int, ...]:
    rows = [need.unit for need in needs]
    wanted = [float(share) * total for share in shares]
    while True:
        left = total - sum(rows)
        gaps = [(wanted[k] - rows[k], -k) for k, need in enumerate(needs) if need.multiple <= left]
        if not gaps:
            return tuple(rows)
        k = -max(gaps)[1]
        rows[k] += needs[k].multiple


def _systematic(
    weights: Tensor, total: int, units: Sequence[int], generator: Generator
) -> RowShares:
    lengths = weights.double() * total / torch.tensor(units, dtype=torch.float64)
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), lengths.cumsum(0)])
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    marks = torch.floor(edges + start).long()
    rows = tuple(int(n) * unit for n, unit in zip(marks.diff().tolist(), units, strict=True))
    shares = torch.tensor(rows, dtype=torch.float64) / total
    return RowShares(rows=rows, coefficients=shares, chances=lengths.clamp(max=1.0))
