"""Forks: every stretch of steps is trained twice from the same state, and merged at the share that dev prefers.

ForkMerge (Jiang et al., NeurIPS 2023). A round of m steps begins with a copy of the state. The ``plain`` branch trains
the end-task alone from there, exactly as the method ``finetune`` would; the ``joint`` branch, from the same state and
over the same steps of the schedule, trains it together with the auxiliary objectives. Then ``(1 − λ) plain + λ joint``
is judged for each λ on offer by the mean loss on dev, and the best goes on; of equal ones the smallest. With λ = 0 all
that is left of the round is plain fine-tuning.

We differ from the paper in that there is one joint branch for all objectives, and the moments of AdamW are merged like
parameters. Heads of auxiliary objectives are no part of the merged model: the plain branch does not touch them, and
they keep what the joint branch teaches them. m is ``training.eval_every``, so every evaluation comes after a merge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from aang_core.batch.packing import pack, plain_batch
from aang_core.batch.rows import Row
from aang_core.randomness import evaluating
from aang_core.train.evaluation import batch_tokens, by_length
from aang_core.train.fork.state import State, merged, put, state_of

if TYPE_CHECKING:
    from aang_core.train.session import Session

PLAIN, JOINT = "plain", "joint"
_START = "start"


@attrs.frozen(kw_only=True)
class Merge:
    """The end of a round. :param share: λ. :param losses: on dev, by λ. :param tokens: positions read for them."""

    share: float
    losses: Mapping[str, float]
    tokens: int

    def as_mapping(self) -> dict[str, Any]:
        """For the history."""
        return {"share": self.share, "losses": dict(self.losses)}


class Fork:
    """The rounds of one training.

    :param every: m. :param total: steps of the schedule; the run takes each of them twice.
    :param shares: the λ on offer, ascending, from 0 to 1.
    :param rows: of dev, by which they are judged.
    :ivar kept: what the round under way has to keep, the ``start`` or the ``plain`` end; empty between rounds.
    """

    def __init__(
        self, every: int, total: int, shares: Sequence[float], rows: Sequence[Row]
    ) -> None:
        self.every, self.total, self.shares, self.rows = every, total, tuple(shares), rows
        self.kept: dict[str, State] = {}

    def place(self, step: int) -> tuple[str, int]:
        """The branch of a step of the run, and its number in the schedule."""
        start, offset = self._round(step)
        length = min(self.every, self.total - start)
        return (PLAIN, start + offset) if offset < length else (JOINT, start + offset - length)

    def _round(self, step: int) -> tuple[int, int]:
        """Where its round begins in the schedule, and the step's number in the round."""
        start = step // (2 * self.every) * self.every
        return start, step - 2 * start

    def ends_round(self, done: int) -> bool:
        """Whether so many steps of the run are whole rounds."""
        return done == 2 * self.total or done % (2 * self.every) == 0

    def begin(self, session: Session, step: int) -> None:
        """Before a step: keep the state in which a round begins."""
        if self._round(step)[1] == 0:
            self.kept = {_START: state_of(session)}

    def end(self, session: Session, step: int) -> Merge | None:
        """After a step: change over to the other branch behind the last one of the first, and merge behind the second.

        :returns: the merge, where there was one.
        """
        branch, _ = self.place(step)
        if self.ends_round(step + 1):
            plain, self.kept = self.kept[PLAIN], {}
            return self._merge(session, plain, state_of(session))
        if branch == PLAIN and self.place(step + 1)[0] == JOINT:
            start, self.kept = self.kept[_START], {PLAIN: state_of(session)}
            put(session, start)
        return None

    def _merge(self, session: Session, plain: State, joint: State) -> Merge:
        found = []
        for share in self.shares:
            put(session, merged(plain, joint, share))
            found.append(self._loss(session))
        own = torch.stack(found)
        decided = session.processes.sum(own if session.processes.is_main else torch.zeros_like(own))
        losses = decided.nan_to_num(nan=torch.inf).tolist()
        best = min(range(len(losses)), key=losses.__getitem__)
        put(session, merged(plain, joint, self.shares[best]))
        return Merge(
            share=self.shares[best],
            losses={f"{s:g}": loss for s, loss in zip(self.shares, losses, strict=True)},
            tokens=len(self.shares) * sum(map(len, self.rows)),
        )

    def _loss(self, session: Session) -> Tensor:
        """The mean loss of the end-task over the rows, in full precision."""
        body, head = session.model.backbone.body, session.end_task_head
        total, count = torch.zeros((), dtype=torch.float64, device=session.device), 0
        with evaluating(body), evaluating(head), torch.no_grad():
            for numbers in by_length([len(r) for r in self.rows], batch_tokens(session.device)):
                rows = [self.rows[i] for i in numbers]
                hidden = session.model.backbone.encode(plain_batch(rows).to(session.device))
                targets = session.end_task.targets(pack(rows)).to(session.device)
                losses = session.end_task.losses(head, hidden, targets)
                total, count = total + losses.double().sum(), count + len(losses)
        return total / count

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint in the middle of a round has to hold."""
        return {
            f"{which}/{name}": value
            for which, state in self.kept.items()
            for name, value in state.items()
        }

    def load(self, tensors: State) -> None:
        """The inverse of `tensors`."""
        self.kept = {}
        for key, value in tensors.items():
            which, _, name = key.partition("/")
            self.kept[which] = {**self.kept.get(which, {}), name: value}
