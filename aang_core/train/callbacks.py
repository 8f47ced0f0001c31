"""The progress of a seed, and the callbacks that receive it and may end it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from aang_core.errors import AangError, ConfigError, PluginError, one_message
from aang_core.registry.options import settings_of
from aang_core.registry.records import load_factory

if TYPE_CHECKING:
    from aang_core.config.settings import RunConfig
    from aang_core.registry.registry import Registry
    from aang_core.train.session import Session
    from aang_core.train.step import StepRecord


@attrs.frozen(kw_only=True)
class Progress:
    """The state of a training; each step and evaluation makes a new one.

    :param phase: index of the phase; `step` counts in it, `done` over all phases.
    :param best_step: steps that the best parameters have taken; 0, with `best_score` None, until dev is finite once.
    :param waited: evaluations since the best score was first reached.
    :param evaluations: ``{"step", metric: value, …}`` each; a last probe has the step of the encoder that it reads.
    :param best_number: the index of the best evaluation in `evaluations`; −1 for none.
    :param best_is_mean: whether the best parameters are the slow copy's.
    :param merges: of a forked run ``{"step", "share", "losses"}`` each (`rounds.Merge`).
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
    merges: tuple[dict[str, Any], ...] = ()
    cost: dict[str, int] = attrs.field(
        factory=lambda: {"labelled_rows": 0, "rows": 0, "tokens": 0, "skipped_steps": 0}
    )

    @property
    def best_metrics(self) -> dict[str, float]:
        """Every metric of the evaluation that is the best so far; empty while there is none."""
        best = self.evaluations[self.best_number] if self.best_number >= 0 else {}
        return {name: value for name, value in best.items() if name != "step"}

    @property
    def is_best(self) -> bool:
        """Whether the last evaluation is the best so far."""
        return self.best_number == len(self.evaluations) - 1 >= 0

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Progress:
        """The inverse of ``attrs.asdict`` after JSON, where tuples have become lists."""
        known: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in facts.items()}
        return cls(**known)

    def charged(self, *, labelled_rows: int, rows: int, tokens: int, skipped: bool) -> Progress:
        """After one more step, with its cost."""
        added = {"labelled_rows": labelled_rows, "rows": rows, "tokens": tokens}
        cost = {name: self.cost[name] + amount for name, amount in added.items()}
        cost["skipped_steps"] = self.cost["skipped_steps"] + skipped
        return attrs.evolve(self, step=self.step + 1, done=self.done + 1, cost=cost)

    def reading(self, tokens: int) -> Progress:
        """After reading so many positions outside a step."""
        return attrs.evolve(self, cost={**self.cost, "tokens": self.cost["tokens"] + tokens})

    def merged(self, merge: Mapping[str, Any]) -> Progress:
        """After the merge of two branches."""
        return attrs.evolve(self, merges=(*self.merges, {"step": self.done, **merge}))

    def evaluated(
        self, metrics: dict[str, float], metric: str, mean: bool = False, step: int | None = None
    ) -> Progress:
        """After an evaluation; `waited` is 0 where it is better than all before.

        Of equal scores the later is the best: on a small dev they are frequent, and more steps have seen more
        (docs/results.md). A probe on the best encoder has to be better. A score that is not finite is never the best:
        nothing would ever beat a NaN.

        :param mean: whether the slow copy was judged. :param step: how many steps a probe's encoder has taken; None
            where no probe was judged.
        """
        value, at = metrics[metric], self.done if step is None else step
        better = math.isfinite(value) and (self.best_score is None or value > self.best_score)
        best = better or (step is None and value == self.best_score)
        return attrs.evolve(
            self,
            evaluations=(*self.evaluations, {"step": at, **metrics}),
            waited=0 if better else self.waited + 1,
            best_score=value if best else self.best_score,
            best_step=at if best else self.best_step,
            best_number=len(self.evaluations) if best else self.best_number,
            best_is_mean=mean if best else self.best_is_mean,
        )


@attrs.frozen
class Spent:
    """Wall and CPU seconds of a seed, over all its interruptions."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @classmethod
    def now(cls) -> Spent:
        """The clocks now; only differences have a meaning."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Spent) -> Spent:
        """From `start` to here."""
        return Spent(self.seconds - start.seconds, self.cpu_seconds - start.cpu_seconds)

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


class Stopped(Exception):  # noqa: N818  nothing went wrong
    """Raised when a callback stops a run between two steps; ``resume`` continues from there.

    :ivar step: the steps that are done.
    """

    def __init__(self, step: int) -> None:
        super().__init__(step)  # alone, so that it survives the way from another process
        self.step = step

    def __str__(self) -> str:
        return f"stopped after step {self.step}, as it was asked to"


class Callback:
    """Follows a run and can end it. Override what you need.

    ``on_train_begin``, ``on_step_end``, ``on_evaluate`` and ``on_train_end`` are named as in transformers. Each calls
    the older name beside it, so that either can be overridden.
    """

    @property
    def stopping(self) -> bool:
        """Read after every step. If true, the run writes a checkpoint and raises `Stopped`."""
        return False

    @property
    def should_training_stop(self) -> bool:
        """Read after every step. If true, the training ends here; that is no interruption.

        The phase under way ends with an evaluation; while it stays true, each later phase takes one step and no final
        fine-tuning follows. The best parameters are kept, and the run leaves its report and model. Of several processes
        that share a seed one is enough.
        """
        return False

    def state_dict(self) -> Mapping[str, Any]:
        """What every checkpoint keeps for `load_state_dict`: tensors, and values that JSON can hold, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Called on resuming, after `on_train_begin`, with the `state_dict` of the checkpoint; tensors on the CPU."""

    def on_begin(self, directory: Path) -> None:
        """Called when the run directory is chosen and taken."""

    def on_preparation(self, what: str, done: int, total: int) -> None:
        """Progress of slow preparations before the first step; at the end `done` equals `total`."""

    def on_train_begin(self, session: Session) -> None:
        """Before the first step of each training."""
        self.on_seed(session)

    def on_seed(self, session: Session) -> None:
        """The older name of `on_train_begin`."""

    def on_step_end(self, session: Session, record: StepRecord, progress: Progress) -> None:
        """After every optimiser step."""
        self.on_step(session, record, progress)

    def on_step(self, session: Session, record: StepRecord, progress: Progress) -> None:
        """The older name of `on_step_end`."""

    def on_evaluate(self, session: Session, progress: Progress) -> None:
        """After every evaluation on dev."""
        self.on_evaluation(session, progress)

    def on_evaluation(self, session: Session, progress: Progress) -> None:
        """The older name of `on_evaluate`."""

    def on_train_end(self, session: Session, progress: Progress) -> None:
        """After a training, when its best parameters are loaded but not yet written."""
        self.on_trained(session, progress)

    def on_trained(self, session: Session, progress: Progress) -> None:
        """The older name of `on_train_end`."""

    def on_remark(self, remark: str) -> None:
        """Something that the user should know."""


class Callbacks(Callback):
    """Several callbacks as one: each receives every call, in this order, and any can stop the run."""

    def __init__(self, members: Iterable[Callback]) -> None:
        several = ((m.members if isinstance(m, Callbacks) else (m,)) for m in members)
        self.members: tuple[Callback, ...] = tuple(member for part in several for member in part)

    def without(self, kind: type[Callback]) -> Callbacks:
        """The members of other kinds."""
        return Callbacks([member for member in self.members if not isinstance(member, kind)])

    @property
    def named(self) -> dict[str, Callback]:
        """The members by the names of their classes; of one class the second is ``NAME#2``."""
        found: dict[str, Callback] = {}
        counts: Counter[str] = Counter()
        for member in self.members:
            name = type(member).__qualname__
            counts[name] += 1
            found[f"{name}#{counts[name]}" if counts[name] > 1 else name] = member
        return found

    @property
    def stopping(self) -> bool:
        return any(member.stopping for member in self.members)

    @property
    def should_training_stop(self) -> bool:
        return bool(self.ending)

    @property
    def ending(self) -> list[str]:
        """The names of those that want the training to end."""
        return [name for name, member in self.named.items() if member.should_training_stop]

    def state_dict(self) -> dict[str, Mapping[str, Any]]:
        """The states of those that have one, by name."""
        states = {name: member.state_dict() for name, member in self.named.items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each its own state; drop those of callbacks that are gone."""
        for name, member in self.named.items():
            if name in state:
                member.load_state_dict(state[name])

    def on_begin(self, directory: Path) -> None:
        for member in self.members:
            member.on_begin(directory)

    def on_preparation(self, what: str, done: int, total: int) -> None:
        for member in self.members:
            member.on_preparation(what, done, total)

    def on_train_begin(self, session: Session) -> None:
        for member in self.members:
            member.on_train_begin(session)

    def on_step_end(self, session: Session, record: StepRecord, progress: Progress) -> None:
        for member in self.members:
            member.on_step_end(session, record, progress)

    def on_evaluate(self, session: Session, progress: Progress) -> None:
        for member in self.members:
            member.on_evaluate(session, progress)

    def on_train_end(self, session: Session, progress: Progress) -> None:
        for member in self.members:
            member.on_train_end(session, progress)

    def on_remark(self, remark: str) -> None:
        for member in self.members:
            member.on_remark(remark)


def check_callbacks(names: Sequence[str], registry: Registry) -> None:
    """:raises ConfigError: names every callback that no plugin brings or that is listed twice."""
    faults = [
        registry.unknown("callback", name, registry.callbacks)
        for name in dict.fromkeys(names)
        if name not in registry.callbacks
    ]
    faults += [f"{name!r} is named twice" for name, n in Counter(names).items() if n > 1]
    if faults:
        raise ConfigError(one_message(faults, "callbacks"))


def made_callbacks(config: RunConfig, registry: Registry) -> list[Callback]:
    """Make the callbacks that the configuration names, for one training.

    :raises PluginError: where a factory fails, or returns something else.
    """
    made = []
    for name in config.callbacks:
        entry = registry.callbacks[name]
        who = f"the callback {name!r} of plugin {entry.provenance}"
        try:
            options = settings_of(entry.record, config.callback_options)
            callback = load_factory(entry.record.factory)(options)
        except AangError:
            raise
        except Exception as cause:  # a stranger's code: say whose
            raise PluginError(
                f"{who} failed in its factory: {type(cause).__name__}: {cause}; mend the plugin, or leave it out of "
                "`callbacks`"
            ) from cause
        if not isinstance(callback, Callback):
            raise PluginError(f"{who} returned {callback!r}; expected an `aang_core.Callback`")
        made.append(callback)
    return made


Watcher = Callback
"""The former name; it goes with 0.2."""
