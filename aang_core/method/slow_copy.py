"""A slow copy of the model: the running mean of its training parameters, for evaluation, export, and as a teacher.

After every optimiser step ``θ' ← d_t θ' + (1 − d_t) θ``, with the decay ``d_t = min(d, (1 + t) / (10 + t))`` which
lets the copy forget the start of a run quickly (Tarvainen and Valpola, "Mean teachers are better role models", 2017;
the ramp is TensorFlow's). Only parameters that train are copied, so frozen layers cost nothing, and with LoRA only the
adapters are copied. Every process makes the same copy, because all have the same parameters after a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    @torch.no_grad()
    def update(self) -> None:
        """Move the copy towards the parameters, after an optimiser step."""
        decay = min(self.decay, (1 + self.steps) / (_RAMP + self.steps))
        self.steps += 1
        own = [parameter.detach() for parameter in self.parameters.values()]
        torch._foreach_lerp_(list(self.mean.values()), own, 1 - decay)

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
