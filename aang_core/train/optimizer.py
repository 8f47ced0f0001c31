"""The optimiser: AdamW in four groups, of embeddings only the rows in use; its learning rates, its state by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Any

import torch
from torch import Tensor, nn

from aang_core.config.settings import Training
from aang_core.errors import ConfigError
from aang_core.method.gradient.row_gradients import coalesce, rows_at, values

_FUSED = {"cpu", "cuda", "mps", "xpu"}
"""Devices with a fused AdamW in every torch that we take."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's names of them."""


def optimizer_for(
    parameters: Mapping[str, nn.Parameter],
    pretrained: Set[str],
    training: Training,
    lr: float = 0.0,
    tables: Collection[Tensor] = (),
) -> RowAdamW:
    """AdamW in four groups: pretrained parameters and new ones, with and without weight decay (vectors have none).

    :param pretrained: names of the heads' parameters that train as the encoder's do.
    :param lr: one learning rate for all groups, for the final fine-tuning; 0 for those of `training`.
    :param tables: embeddings, of which on CPUs only the rows in use have moments (`RowAdamW`).
    """
    members_of: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        known = name.startswith("body.") or name in pretrained
        members_of.setdefault((known, parameter.ndim > 1), []).append(parameter)
    groups: list[dict[str, Any]] = []
    for (known, decays), members in members_of.items():
        base = lr or (training.lr if known else training.head_lr)
        decay = training.weight_decay if known else training.head_weight_decay
        groups.append(
            {
                "params": members,
                "lr": base,
                "base_lr": base,
                "weight_decay": decay if decays else 0.0,
            }
        )
    betas = (training.beta1, training.beta2)
    trained = {id(parameter) for parameter in parameters.values()}
    by_row = {id(t): t for t in tables if id(t) in trained and t.device.type == "cpu"}.values()
    return RowAdamW(groups, by_row, betas=betas, fused=fuses(parameters.values()))


class RowAdamW(torch.optim.AdamW):
    """AdamW that keeps moments for those rows of a table alone that have had a gradient in some step.

    A row [H] that never had one has moments of zero, and AdamW would do nothing but let it decay. We leave it as it
    is, which is the only difference: at the defaults such a row keeps the 6e-5 of its length that it would have lost
    after 120 steps. A row that has had a gradient is updated in every later step. Once half of the rows have had one,
    as under a tied decoder, which reads all, the table is treated as a whole.

    :param tables: parameters [V, H] on the CPU, members of `groups`; on other devices a step would have to wait for
        the numbers of the rows.
    :ivar state: a table's moments are [R, H], beside them ``rows`` [R], the numbers of their rows.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], tables: Iterable[Tensor], **settings: Any
    ) -> None:
        super().__init__(groups, **settings)
        self.tables = tuple(tables)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        coalesce(self.tables)
        found = ((table, self._rows(table)) for table in self.tables if table.grad is not None)
        parts = [
            (table, rows, self._part(table, rows)) for table, rows in found if rows is not None
        ]
        for table, _, part in parts:
            self._replace(table, part)
        loss = super().step(closure)
        for table, rows, part in parts:
            self._replace(part, table)
            table[rows] = part
            self.state[table] = {"rows": rows, **self.state.pop(part)}
        return loss

    def _rows(self, table: Tensor) -> Tensor | None:
        """[R] the rows that have had a gradient, this step's new ones last; None where the table is a whole."""
        assert table.grad is not None
        state = self.state.get(table, {})
        if not state or "rows" in state:
            rows = state.get("rows", torch.zeros(0, dtype=torch.long))
            rows = torch.cat([rows, _new_rows(table.grad, rows)])
            if 2 * len(rows) <= len(table):
                return rows
        if "rows" in state:
            known = state.pop("rows")
            for moment in MOMENTS:
                state[moment] = over_table(state[moment], known, table)
        table.grad = table.grad.to_dense() if table.grad.is_sparse else table.grad
        return None

    def _part(self, table: Tensor, rows: Tensor) -> nn.Parameter:
        """[R, H] those rows as a parameter, with their gradient and moments."""
        assert table.grad is not None
        part = nn.Parameter(table[rows])
        part.grad = rows_at(table.grad, rows)
        if state := self.state.pop(table, None):
            new = part.new_zeros(len(rows) - len(state.pop("rows")), part.shape[1])
            for moment in MOMENTS:
                state[moment] = torch.cat([state[moment], new])
            self.state[part] = state
        return part

    def rows(self, table: Tensor) -> Tensor | None:
        """[R] the rows of a table that the steps so far may have changed; None for all."""
        rows: Tensor | None = self.state.get(table, {}).get("rows")
        return rows

    def _replace(self, old: Tensor, new: Tensor) -> None:
        """Put a parameter in the place of another, in its group."""
        for group in self.param_groups:
            group["params"] = [new if member is old else member for member in group["params"]]


def _new_rows(gradient: Tensor, known: Tensor) -> Tensor:
    """The rows of a coalesced gradient that are not zero, without the known ones."""
    norms = torch.linalg.vector_norm(values(gradient), dim=1)
    had = torch.zeros(len(gradient), dtype=torch.bool)
    had[gradient.indices()[0] if gradient.is_sparse else slice(None)] = norms != 0
    had[known] = False
    return had.nonzero()[:, 0]


def over_table(moment: Tensor, rows: Tensor, table: Tensor) -> Tensor:
    """[V, H] a moment [R, H] of some rows, laid over the whole table; those of all others are zero."""
    return torch.zeros_like(table).index_copy_(0, rows, moment)


def fuses(parameters: Iterable[Tensor]) -> bool:
    """Whether one kernel can update them all: on CUDA a launch in place of dozens, and no pass over memory between."""
    return all(parameter.device.type in _FUSED for parameter in parameters)


def linear_warmup_decay(step: int, total: int, warmup: float) -> float:
    """The factor in [0, 1] that multiplies every learning rate at `step`, as in the paper's public code.

    It rises by equal amounts to 1 over the first ``round(warmup · total)`` steps, whose first one
    already moves, then falls to 0 at `total`, which is after the last step; 0 from there on.

    :param step: steps done so far, from 0.
    :param total: steps of the whole run.
    :param warmup: share of `total`, in [0, 1]; 0.06 in the public code.
    :raises ConfigError: for a negative step, a run without steps, or a warm-up outside [0, 1].

    >>> [linear_warmup_decay(step, 4, 0.5) for step in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < 0 or total < 1 or not 0.0 <= warmup <= 1.0:
        raise ConfigError(
            "a schedule needs step >= 0, total >= 1 and warmup in [0, 1]; "
            f"found step={step}, total={total}, warmup={warmup}"
        )
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if step >= total:
        return 0.0
    return (total - step) / (total - rising)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The optimiser's state by parameter name."""
    return {
        f"optimizer.{key}.{name}": torch.as_tensor(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: RowAdamW, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave, maybe on another device, where a table that went by rows is a whole.

    The step counter stays where the optimiser keeps it.
    """
    by_row = {id(table) for table in optimizer.tables}
    for name, parameter in parameters.items():
        suffix = f".{name}"
        state = {}
        for key in ("step", *MOMENTS, "rows"):
            if (value := tensors.get(f"optimizer.{key}{suffix}")) is not None:
                state[key] = value.clone() if key == "step" else value.to(parameter.device).clone()
        if "rows" in state and id(parameter) not in by_row:
            rows = state.pop("rows")
            state |= {key: over_table(state[key], rows, parameter) for key in MOMENTS}
        if state:
            optimizer.state[parameter] = state
