"""What the branches of a fork change: copied, put back, and two of them merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aang_core.train.optimizer import MOMENTS, optimizer_tensors, over_table, restore_optimizer

if TYPE_CHECKING:
    from aang_core.train.session import Session

State = Mapping[str, Tensor]
"""What a branch changes, by name: parameters and buffers of encoder and end-task head, their moments, slow copies."""

_SLOW_STEPS = "slow.steps"
_COUNTERS = ("optimizer.step.", _SLOW_STEPS)
"""Names of what counts updates: taken from the joint branch, which has made as many as the plain one."""

_ROWS, _MOMENTS = "optimizer.rows.", tuple(f"optimizer.{moment}." for moment in MOMENTS)


def state_of(session: Session) -> dict[str, Tensor]:
    """Copies of everything that a branch changes."""
    found = {**_model(session), **optimizer_tensors(session.optimizer, _parameters(session))}
    if session.slow is not None:
        found |= {f"slow.{name}": value for name, value in session.slow.mean.items()}
        found[_SLOW_STEPS] = torch.tensor(session.slow.steps)
    return {name: value.detach().clone() for name, value in found.items()}


def put(session: Session, state: State) -> None:
    """Make the session what `state_of` has copied."""
    with torch.no_grad():
        for name, tensor in _model(session).items():
            tensor.copy_(state[name])
    parameters = _parameters(session)
    for parameter in parameters.values():
        session.optimizer.state.pop(parameter, None)
    restore_optimizer(session.optimizer, parameters, state)
    if session.slow is not None:
        means = {name: state[f"slow.{name}"] for name in session.slow.mean}
        session.slow.load(means, int(state[_SLOW_STEPS]))


def merged(plain: State, joint: State, share: float) -> State:
    """``(1 − λ) plain + λ joint``; a moment that only one of them has is taken from that one."""
    if share in (0.0, 1.0):
        return joint if share else plain  # to the bit
    plain, joint = _on_equal_rows(plain, joint)
    return {
        name: _between(plain.get(name), joint.get(name), share, name.startswith(_COUNTERS))
        for name in {**plain, **joint}
    }


def _on_equal_rows(*states: State) -> list[dict[str, Tensor]]:
    """The same, embeddings with moments for the rows that any of them has met (`optimizer.RowAdamW`), in one order.

    A row that a state has not met has moments of zero there.
    """
    found = [dict(state) for state in states]
    for name in {key.removeprefix(_ROWS) for state in states for key in state if _ROWS in key}:
        if not all(f"{_MOMENTS[0]}{name}" in state for state in found):
            continue  # the table of one alone
        met = [state.pop(_ROWS + name, None) for state in found]
        some = [rows for rows in met if rows is not None]
        union = torch.cat(some).unique() if len(some) == len(met) else None  # None: all rows
        for state, rows in zip(found, met, strict=True):
            for key in (moment + name for moment in _MOMENTS):
                if rows is not None:
                    state[key] = over_table(state[key], rows, state[name])
                state[key] = state[key] if union is None else state[key][union]
            if union is not None:
                state[_ROWS + name] = union
    return found


def _between(plain: Tensor | None, joint: Tensor | None, share: float, counts: bool) -> Tensor:
    if joint is None or plain is None:
        either = plain if joint is None else joint
        assert either is not None
        return either
    if counts or not joint.is_floating_point():
        return joint
    return plain.to(joint.device).lerp(joint, share)


def _model(session: Session) -> dict[str, Tensor]:
    """What trains of the encoder and the end-task's head, and their buffers; not the heads of other objectives."""
    head = session.end_task_head
    own = {id(tensor) for tensor in (*head.parameters(), *head.buffers())}
    return {
        n: t for n, t in session.trained_tensors.items() if n.startswith("body.") or id(t) in own
    }


def _parameters(session: Session) -> dict[str, nn.Parameter]:
    names = _model(session)
    return {name: p for name, p in session.parameters.items() if name in names}
