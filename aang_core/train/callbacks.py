"""How far a seed has come, and who is told."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord


@attrs.frozen(kw_only=True)
class Progress:
    """Replaced after every step and evaluation.

    :param phase: index of the phase; `step` counts in it, `done` over all phases.
    :param best_step: steps done when dev was best; 0, and `best_score` None, while it never was finite.
    :param waited: evaluations since then.
    :param evaluations: ``{"step", metric: value, …}`` each.
    :param best_number: the number of the best evaluation in `evaluations`; −1 while there is none.
    :param best_is_mean: whether the best parameters are the slow copy's.
    :param cost: labelled rows, rows and tokens so far, and the steps that were skipped.
    """

    phase: int = 0
    step: int = 0
    done: int = 0
    best_step: int = 0
    best_score: float | None = None
    waited: int = 0
    best_number: int = -1
    best_is_mean: bool = False
    evaluations: tuple[dict[str, float], ...] = ()
    cost: dict[str, int] = attrs.field(
        factory=lambda: {"labelled_rows": 0, "rows": 0, "tokens": 0, "skipped_steps": 0}
    )

    @property
    def best_metrics(self) -> dict[str, float]:
        """Every metric of the evaluation that is the best so far; empty while there is none."""
        best = self.evaluations[self.best_number] if self.best_number >= 0 else {}
        return {name: value for name, value in best.items() if name != "step"}

    def charged(self, *, labelled_rows: int, rows: int, tokens: int, skipped: bool) -> Progress:
        """One step further, with its cost."""
        added = {"labelled_rows": labelled_rows, "rows": rows, "tokens": tokens}
        cost = {name: self.cost[name] + amount for name, amount in added.items()}
        cost["skipped_steps"] = self.cost["skipped_steps"] + skipped
        return attrs.evolve(self, step=self.step + 1, done=self.done + 1, cost=cost)

    def reading(self, tokens: int) -> Progress:
        """After passes over so many positions outside a step."""
        return attrs.evolve(self, cost={**self.cost, "tokens": self.cost["tokens"] + tokens})

    def evaluated(self, metrics: dict[str, float], metric: str, mean: bool = False) -> Progress:
        """After an evaluation; `waited` is 0 where it is the best so far.

        :param mean: whether the slow copy was judged.

        An equal score is not better, and one that is not finite never is: nothing would ever beat a NaN.
        """
        value = metrics[metric]
        better = math.isfinite(value) and (self.best_score is None or value > self.best_score)
        return attrs.evolve(
            self,
            evaluations=(*self.evaluations, {"step": self.done, **metrics}),
            waited=0 if better else self.waited + 1,
            best_score=value if better else self.best_score,
            best_step=self.done if better else self.best_step,
            best_number=len(self.evaluations) if better else self.best_number,
            best_is_mean=mean if better else self.best_is_mean,
        )


@attrs.frozen
class Spent:
    """Time that a seed has taken, in wall and CPU seconds of this process, over all its interruptions."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @classmethod
    def now(cls) -> Spent:
        """The clocks as they stand; differences mean something, values do not."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Spent) -> Spent:
        """From `start` to here."""
        return Spent(self.seconds - start.seconds, self.cpu_seconds - start.cpu_seconds)

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


class Stopped(Exception):  # noqa: N818  nothing went wrong
    """A run ended between two steps because its callback asked for it; ``resume`` goes on from there.

    :ivar step: the steps that are done.
    """

    def __init__(self, step: int) -> None:
        super().__init__(step)  # alone, so that it survives the way from another process
        self.step = step

    def __str__(self) -> str:
        return f"stopped after step {self.step}, as it was asked to"


class Callback:
    """What a run tells while it goes on; override what you want to hear."""

    @property
    def stopping(self) -> bool:
        """Asked after every step: where it is true, the run writes a checkpoint and raises `Stopped`."""
        return False

    def on_begin(self, directory: Path) -> None:
        """When the run directory is settled and taken."""

    def on_preparation(self, what: str, done: int, total: int) -> None:
        """While something is made that takes long, before the first step; at the end `done` equals `total`."""

    def on_seed(self, session: Session) -> None:
        """Before the first step of each seed."""

    def on_step(self, session: Session, record: StepRecord, progress: Progress) -> None:
        """After every optimiser step."""

    def on_evaluation(self, session: Session, progress: Progress) -> None:
        """After every evaluation on dev."""

    def on_trained(self, session: Session, progress: Progress) -> None:
        """After the last step of a training, when its best parameters are loaded and not written yet."""

    def on_remark(self, remark: str) -> None:
        """When something happened that the user should know."""


class Callbacks(Callback):
    """Several callbacks as one: each hears everything, in this order, and any of them can stop the run."""

    def __init__(self, members: Sequence[Callback]) -> None:
        self.members = tuple(members)

    def without(self, kind: type[Callback]) -> Callbacks:
        """The others."""
        return Callbacks([member for member in self.members if not isinstance(member, kind)])

    @property
    def stopping(self) -> bool:
        return any(member.stopping for member in self.members)

    def on_begin(self, directory: Path) -> None:
        for member in self.members:
            member.on_begin(directory)

    def on_preparation(self, what: str, done: int, total: int) -> None:
        for member in self.members:
            member.on_preparation(what, done, total)

    def on_seed(self, session: Session) -> None:
        for member in self.members:
            member.on_seed(session)

    def on_step(self, session: Session, record: StepRecord, progress: Progress) -> None:
        for member in self.members:
            member.on_step(session, record, progress)

    def on_evaluation(self, session: Session, progress: Progress) -> None:
        for member in self.members:
            member.on_evaluation(session, progress)

    def on_trained(self, session: Session, progress: Progress) -> None:
        for member in self.members:
            member.on_trained(session, progress)

    def on_remark(self, remark: str) -> None:
        for member in self.members:
            member.on_remark(remark)


Watcher = Callback
"""The former name; it goes with 0.2."""
