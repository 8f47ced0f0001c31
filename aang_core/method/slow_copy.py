"""A slow copy of the model: the running mean of its training parameters, for evaluation, export, and as a teacher.

After every optimiser step ``θ' ← d_t θ' + (1 − d_t) θ``, with the decay ``d_t = min(d, (1 + t) / (10 + t))`` which
lets the copy forget the start of a run quickly (Tarvainen and Valpola, "Mean teachers are better role models", 2017;
the ramp is TensorFlow's). Only parameters that train are copied, so frozen layers cost nothing, and with LoRA only the
adapters are copied. Every process makes the same copy, because all have the same parameters after a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_RAMP = 10
"""How slowly the decay rises to its bound: after t steps it is at most (1 + t) / (10 + t)."""


class SlowCopy:
    """The running mean of some parameters.

    :param parameters: by name, as they are now: the copy begins as their equal.
    :param decay: d, the bound of the decay, in [0, 1).
    :param precision: of its passes as a teacher, ``fp32`` or ``bf16``; its evaluations have the run's own.
    :ivar mean: by name, the copy; on the parameters' device, in their dtype.
    :ivar steps: t, how often it was updated.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], decay: float, precision: str = "fp32"
    ) -> None:
        self.parameters, self.decay, self.precision = parameters, decay, precision
        self.mean = {name: p.detach().clone() for name, p in parameters.items()}
        self.steps = 0
        self._apart: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, changed: Callable[[Tensor], Tensor | None]) -> None:
        """Move the copy towards the parameters, after an optimiser step.

        :param changed: of a parameter, the rows that the steps so far may have changed; None for all. The others are
            as they were in the copy's last update, and where they are equal to it, nothing moves.
        """
        decay = min(self.decay, (1 + self.steps) / (_RAMP + self.steps))
        self.steps += 1
        rest, own = [], []
        for name, parameter in self.parameters.items():
            if (rows := changed(parameter)) is None:
                self._apart.pop(name, None)
                rest.append(self.mean[name])
                own.append(parameter.detach())
            else:
                rows = self._rows_apart(name, rows)
                self.mean[name][rows] = self.mean[name][rows].lerp_(parameter[rows], 1 - decay)
        if rest:
            torch._foreach_lerp_(rest, own, 1 - decay)

    def _rows_apart(self, name: str, changed: Tensor) -> Tensor:
        """[R] the rows of a table in which it and its copy may differ: those of other optimisers, too."""
        if name not in self._apart:
            self._apart[name] = (self.mean[name] != self.parameters[name]).any(1)
        self._apart[name][changed] = True
        return self._apart[name].nonzero()[:, 0]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model is the slow copy inside the block; no tensor is copied for it.

        Nothing may change parameters there, and no graph that was made outside may run backward.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            own = parameter.data
            parameter.data = self.mean[name]
            self.mean[name] = own

    def load(self, mean: Mapping[str, Tensor], steps: int) -> None:
        """Go on from a saved copy."""
        with torch.no_grad():
            for name, tensor in self.mean.items():
                tensor.copy_(mean[name])
        self.steps = steps
        self._apart = {}
