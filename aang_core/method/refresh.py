"""Between steps, for data sources that look at the model. In: the slow copy. Out: what they draw by from then on.

A source may decide anew, every so many steps, what it draws and how: pseudo-labels by the model itself (self-training:
Lee, 2013; by a mean of its parameters: Tarvainen and Valpola, 2017). The core shows it the slow copy of the model
(`protocols.Look`); what it decides is its memory, which the core saves in checkpoints. So a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aang_core.batch.checks import errors_of, expect
from aang_core.batch.packing import BoundObjective, plain_batch
from aang_core.batch.protocols import Look
from aang_core.batch.rows import Row
from aang_core.method.gradient.metagrad import Model
from aang_core.method.slow_copy import SlowCopy
from aang_core.method.teacher import slow_answers
from aang_core.processes import Processes

_ROWS = 64


class Refresher:
    """The sources that look at the model.

    :param objectives: all of the run.
    :ivar sources: by name, each once.
    """

    def __init__(self, model: Model, slow: SlowCopy, objectives: Sequence[BoundObjective]) -> None:
        self.model, self.slow = model, slow
        self.sources: dict[str, Any] = {}
        self.makers: dict[str, str] = {}
        for objective in filter(refreshes, objectives):
            name = objective.id.partition("/")[0]
            self.sources[name], self.makers[name] = objective.source, objective.who("data")
        self.tokens = 0

    @property
    def memories(self) -> dict[str, dict[str, Tensor]]:
        """By source, what it draws by."""
        return {name: dict(source.memory()) for name, source in self.sources.items()}

    def restore(self, memories: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Let the sources draw by saved memories."""
        for name, source in self.sources.items():
            source.remember(memories[name])

    def due(self, step: int) -> bool:
        """Whether a source looks at the model before this step of a phase."""
        return any(_due(source, step) for source in self.sources.values())

    def refresh(self, step: int, group: Processes) -> tuple[int, list[str]]:
        """Let the sources that are due look and remember, the same on every process; nothing may draw meanwhile.

        :returns: positions that were read, and what the user should know.
        :raises PluginError: where a source fails or breaks its contract.
        """
        device, said = next(self.model.backbone.body.parameters()).device, []
        self.tokens = 0
        for name, source in self.sources.items():
            if not _due(source, step):
                continue
            with errors_of(self.makers[name], "refreshed"):
                before = source.memory()
                new = {n: torch.zeros_like(old) for n, old in before.items()}
                if group.is_main:  # one looks, and all hear of it
                    new, text = source.refreshed(self._look)
                    said += [text] if text else []
                    found, wanted = _shapes(new), _shapes(before)
                    expect(found == wanted, f"expected the memory {wanted}, found {found}")
                new = {n: group.sum(t.clone().to(device)).to(before[n]) for n, t in new.items()}
                source.remember(new)
        return group.total(self.tokens, device), said

    def _look(self, rows: Sequence[Row]) -> Look:
        seen = list(self._seen(rows))
        return Look(
            logits=torch.cat([logits for logits, _ in seen]),
            means=torch.cat([means for _, means in seen]),
        )

    def _seen(self, rows: Sequence[Row]) -> Iterator[tuple[Tensor, Tensor]]:
        device = next(self.model.backbone.body.parameters()).device
        for start in range(0, len(rows), _ROWS):
            stream = plain_batch(rows[start : start + _ROWS]).to(device)
            self.tokens += stream.tokens
            every = torch.arange(len(stream.lengths), device=device)
            hidden, logits = slow_answers(self.model, self.slow, stream, every)
            yield logits.float().cpu(), hidden.means(every).float().cpu()


def refreshes(objective: BoundObjective) -> bool:
    """Whether an objective's data source looks at the model."""
    return getattr(objective.source, "refresh_every", 0) > 0


def _due(source: Any, step: int) -> bool:
    return step > 0 and step % int(source.refresh_every) == 0


def _shapes(memory: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(memory[name].shape) for name in sorted(memory)}
