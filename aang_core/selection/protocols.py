"""What a selector is: made from a `SelectionContext`, a `BoundSelector` scores windows of rows.

The core reads pools, leaves rows out, cuts the rest into windows, writes shards, resumes and ranks. A selector only
scores how useful each example is for the target. Fixed letters: B rows, H hidden, K pools.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from aang_core.batch.packing import plain_batch
from aang_core.batch.protocols import Backbone, no_op
from aang_core.batch.rows import Hidden, Row
from aang_core.data.task import Task
from aang_core.errors import ConfigError
from aang_core.method.precision import autocast
from aang_core.randomness import evaluating
from aang_core.registry.registry import Registry
from aang_core.selection.pools import Pool
from aang_core.train.evaluation import by_length

POOLINGS = ("mean", "first")


@attrs.frozen(eq=False, kw_only=True, slots=False)  # a dict for the cached encoder
class SelectionContext:
    """What a selector's factory is called with.

    :param target: with the labelled training rows that the selection may see.
    :param examples: the same as a pool; `target_sample` are its rows to train on.
    :param samples: for each pool the rows to train on; they are never scored.
    :param options: the record's, with the user's over them.
    :param load: makes the encoder, in the state of its checkpoint.
    :param progress: told of long work: what it is, how much is done, of how much.
    """

    target: Task
    examples: Pool
    target_sample: Sequence[int]
    pools: Sequence[Pool]
    samples: Sequence[Sequence[int]]
    options: Mapping[str, Any]
    seed: int
    registry: Registry
    load: Callable[[], Backbone]
    batch_tokens: int = 4096
    precision: str = "fp32"
    progress: Callable[[str, int, int], None] = no_op
    remark: Callable[[str], None] = no_op

    @cached_property
    def backbone(self) -> Backbone:
        """The encoder, loaded when it is first asked for; a selector that trains, trains this one."""
        return self.load()

    @property
    def device(self) -> torch.device:
        """Where the encoder lives."""
        return next(self.backbone.body.parameters()).device

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of forward passes."""
        return autocast(self.device, self.precision)

    def batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Numbers of rows in length order, as many together as one forward pass may hold."""
        return by_length([len(row) for row in rows], self.batch_tokens)

    def pooling(self) -> str:
        """The option ``pooling``.

        :raises ConfigError: where it is none of `POOLINGS`.
        """
        chosen: str = self.options["pooling"]
        if chosen not in POOLINGS:
            raise ConfigError(
                f"option pooling: expected one of {', '.join(POOLINGS)}, found {chosen!r}"
            )
        return chosen

    def vectors(self, rows: Sequence[Row], pooling: str) -> Tensor:
        """[B, H] pooled states on the CPU in fp32 or wider, in the order of the rows; dropout off."""
        found: Tensor | None = None
        with evaluating(self.backbone.body), torch.inference_mode():
            for batch in self.batches(rows):
                with self.autocast():
                    hidden = self.backbone.encode(
                        plain_batch([rows[i] for i in batch]).to(self.device)
                    )
                states = pooled(hidden, pooling).cpu()
                states = states if states.dtype == torch.float64 else states.float()
                if found is None:
                    found = states.new_zeros(len(rows), states.shape[1])
                found[torch.tensor(batch)] = states
        if found is None:
            return torch.zeros(0, self.backbone.hidden_size)
        return found.clone()  # an ordinary tensor: one of inference mode serves no gradient


def pooled(hidden: Hidden, pooling: str) -> Tensor:
    """[B, H]: the mean over each row's positions, or its first state."""
    rows = torch.arange(len(hidden.offsets) - 1)
    return hidden.means(rows) if pooling == "mean" else hidden.first(rows)


@attrs.frozen(eq=False)
class Window:
    """Rows of one pool that are scored together. `numbers` ascend."""

    pool: Pool
    numbers: Sequence[int]


@runtime_checkable
class BoundSelector(Protocol):
    """A selector at work."""

    def prepare(self) -> Mapping[str, Tensor]:
        """Everything that takes long before the first score (training, a gradient).

        :returns: what `restore` needs, so that a broken run need not do it again; saved as safetensors.
        """

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Be as after `prepare`."""

    def scores(self, window: Window) -> Tensor:
        """[B] float64, the more the better. Comparable among pools; −inf leaves a row out of the ranking.

        Depends on the window's rows alone, not on the windows before it.
        """


def __getattr__(name: str) -> Any:
    """`SelectionContext` under the name that it had before (until 0.2)."""
    if name != "SelectionGround":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "SelectionGround is now SelectionContext; the old name goes with 0.2",
        DeprecationWarning,
        stacklevel=2,
    )
    return SelectionContext
