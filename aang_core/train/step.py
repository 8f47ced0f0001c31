"""One step of the loop: the nine modules of the design in their order.

Read `train_step` first; each of its lines is one arrow of the data flow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from aang_core.batch.stream import FusedBatch
from aang_core.method.gradient.metagrad import Alignment, dot
from aang_core.method.gradient.row_gradients import by_rows, coalesce, values
from aang_core.method.step_plan import END_TASK, StepPlan
from aang_core.method.teacher import Lesson
from aang_core.method.weights.weighting import WeightState
from aang_core.processes import Processes
from aang_core.randomness import seeded
from aang_core.train.fork.rounds import PLAIN
from aang_core.train.optimizer import linear_warmup_decay
from aang_core.train.session import Session

DEV_GRADIENT = "dev gradient"
"""What a record names in place of objectives where the direction of the search itself is not finite."""

Prepared = tuple[StepPlan, list[int], FusedBatch | None]


@attrs.frozen(eq=False)
class StepRecord:
    """What one step did; a line of ``history.jsonl``, whose ``step`` counts over all phases and from 1.

    :param step: in its phase, from 0.
    :param losses, alignments, norms: by objective id, of the step's objectives; the end-task is ``end-task``.
    :param weights: by objective id, of all objectives that rows were shared among, even if one got none.
        Losses are means over targets, alignments as `Alignment.values` gives them, norms ‖g_k‖.
    :param end_task_weight: λ_e.
    :param labelled_rows, rows: rows of the end-task, and of all objectives.
    :param lr: the encoder's learning rate.
    :param tokens: positions of all objectives, and those that the teacher read.
    :param skipped: what was not finite (`_not_finite`); the step then changed nothing.
    :param branch, merge: in a forked run the step's branch, and at the end of a round `rounds.Merge.as_mapping`, whose
        positions `tokens` then holds too.
    """

    step: int
    losses: dict[str, float]
    weights: dict[str, float]
    alignments: dict[str, float]
    norms: dict[str, float]
    end_task_weight: float
    labelled_rows: int
    rows: int
    lr: float = 0.0
    tokens: int = 0
    skipped: tuple[str, ...] = ()
    branch: str = ""
    merge: Mapping[str, Any] | None = None

    def line(self, number: int) -> dict[str, Any]:
        """The step in the history, by its number over all phases; what only forked runs have is left out of others."""
        found = {**attrs.asdict(self), "step": number}
        return {name: v for name, v in found.items() if v or name not in ("branch", "merge")}


class Preparation:
    """Prepares the batch of the coming step while the present one runs.

    :param total: the steps of the phase.
    """

    def __init__(self, session: Session, phase: str, total: int) -> None:
        self.session, self.phase, self.total = session, phase, total
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="aang-batches")
        self.coming: tuple[int, Future[Prepared]] | None = None

    def take(self, step: int, state: WeightState, following: bool) -> Prepared:
        """The batch of `step`; starts preparing the next one, under the present weights `state`."""
        ready = self.drawn(step)
        self.session.planned = state
        self.coming = None
        if following:
            self.coming = (step + 1, self.pool.submit(self._prepare, step + 1, state))
        return ready

    def drawn(self, step: int) -> Prepared:
        """The batch of `step`, without preparing another."""
        if self.coming is None or self.coming[0] != step:
            self.coming = (step, self.pool.submit(self._prepare, step, self.session.planned))
        return self.coming[1].result()

    def _prepare(self, step: int, state: WeightState) -> Prepared:
        phase, number, total = _place(self.session, self.phase, step, self.total)
        plan = self.session.planner.plan(number, state, phase, number / total)
        places, batch = self.session.planner.batch(plan, self.session.processes)
        if batch is not None and self.session.device.type == "cuda":
            batch = batch.pinned()
        return plan, places, batch

    def close(self) -> None:
        """End the thread."""
        self.pool.shutdown(cancel_futures=True)


def train_step(session: Session, preparation: Preparation, step: int, total: int) -> StepRecord:
    """One optimiser step. If it is not finite, it changes no parameter and no weight.

    :param preparation: where the step's batch is made.
    :param step: in its phase, from 0. :param total: steps of the phase.
    :raises AangError: where a primitive fails or breaks its contract.
    """
    plan, places, batch = preparation.take(step, session.weights, following=step + 1 < total)
    _, step, length = _place(session, preparation.phase, step, total)
    _refresh_dev_gradient(session, step)
    lr = _set_learning_rates(session, step, length)
    lesson = None if batch is None else session.taught(batch, plan)
    with training(session), dropout(session, step):
        losses, alignment = _gradients(session, plan, places, lesson.batch if lesson else None)
    losses, alignment, norm = _read(losses, alignment, _clip(session))
    skipped = _not_finite(session, plan, losses, alignment, norm)
    if not skipped:
        session.optimizer.step()
        _follow(session, plan, lesson)
        if alignment is not None and session.rule is not None:
            known = (session.weights, alignment, plan, session.factors)
            session.weights = session.rule.next(*known)
    elif DEV_GRADIENT in skipped:
        session.dev_gradient = None  # a running mean would never be rid of it
    session.optimizer.zero_grad(set_to_none=True)
    read = lesson.batch.tokens + lesson.tokens if lesson else 0
    tokens = session.processes.total(read, session.device)
    record = _record(session, plan, losses, alignment)
    return attrs.evolve(record, lr=lr, tokens=tokens, skipped=skipped)


def _place(session: Session, phase: str, step: int, total: int) -> tuple[str, int, int]:
    """What a step of a phase trains, its number in the schedule, and the schedule's length.

    A forked run takes each step of its schedule twice.
    """
    if session.fork is None:
        return phase, step, total
    branch, number = session.fork.place(step)
    return ("end-task" if branch == PLAIN else phase), number, session.fork.total


def engine_fault(session: Session) -> str:
    """Why the fused engine cannot be used, judged on the first batch; empty if it can."""
    if session.dev is None or session.engine.kind == "looped":
        return ""  # nothing to compare
    plan = session.planner.plan(0, session.weights)
    _, batch = session.planner.batch(plan, Processes())
    if batch is None:
        return ""
    lesson = session.taught(batch, plan)
    direction = session.dev.at(0, None) or session.any_direction()
    return session.engine.check(lesson.batch, plan.coefficients, direction)


@contextmanager
def training(session: Session) -> Iterator[None]:
    """Inside the block dropout is on, and gradients of embeddings go by rows."""
    modules = (session.model.backbone.body, session.model.heads)
    for module in modules:
        module.train()
    alone = session.processes.size == 1  # others may have other rows, and sums want equal shapes
    with by_rows(session.model.backbone.body) if alone else nullcontext():
        yield
    for module in modules:
        module.eval()


def dropout(session: Session, step: int) -> AbstractContextManager[None]:
    """The step's own random numbers for dropout, another set on every process."""
    return seeded(session.seed, "dropout", step, session.processes.rank, device=session.device)


def _refresh_dev_gradient(session: Session, step: int) -> None:
    """Compute a new dev gradient if the method has one and it is due."""
    dev = session.dev
    if dev is not None and (step % dev.every == 0 or session.dev_gradient is None):
        with session.engine.autocast():
            session.dev_gradient = dev.at(step, session.dev_gradient)


def _gradients(
    session: Session, plan: StepPlan, places: list[int], own: FusedBatch | None
) -> tuple[Tensor, Alignment | None]:
    """Fill ``.grad`` on every process with the whole step's gradient; the losses [S] and their alignment.

    :param own: this process's part of the step, on its device.
    """
    size, group = len(plan.numbers), session.processes
    coefficients = plan.coefficients[places]
    losses, alignment = torch.zeros(size, dtype=torch.float64, device=session.device), None
    if session.dev_gradient is None:
        if own is not None:
            part = session.engine.plain(own, coefficients)
            losses = _scattered(part.double(), places, size)
    else:
        products = torch.zeros(3, size, dtype=torch.float64, device=session.device)
        if own is not None:
            result = session.engine.aligned(own, coefficients, session.dev_gradient)
            losses = _scattered(result.losses.double(), places, size)
            found = result.alignment
            columns = (found.dots, found.squared_norms, found.observed.to(session.device))
            products = torch.stack([_scattered(c.double(), places, size) for c in columns])
        dots, squared_norms, observed = group.sum(products)
        norm = dot(session.dev_gradient, session.dev_gradient).sqrt()
        # `agree` in its ramp has rows and teaches nothing
        spoke = (observed > 0) & (squared_norms != 0)
        alignment = Alignment(dots, squared_norms, spoke, norm)
    group.sum_gradients(session.parameters.values())
    return group.sum(losses), alignment


def _read(
    losses: Tensor, alignment: Alignment | None, norm: Tensor
) -> tuple[Tensor, Alignment | None, Tensor]:
    """A step's numbers on the CPU, in one copy: the only time that a step waits for its device."""
    found = [losses.double(), norm.double()[None]]
    if alignment is not None:
        found += [alignment.dots, alignment.squared_norms, alignment.observed.double()]
        found += [alignment.dev_norm.double()[None]]
    parts = torch.cat(found).cpu().split([len(part) for part in found])
    if alignment is not None:
        dots, squared_norms, observed, dev_norm = parts[2:]
        alignment = Alignment(dots, squared_norms, observed > 0, dev_norm[0])
    return parts[0], alignment, parts[1][0]


def _scattered(values: Tensor, places: Sequence[int], size: int) -> Tensor:
    """[size] zeros with `values` at `places`."""
    out = values.new_zeros(size)
    out[torch.tensor(list(places), dtype=torch.long, device=values.device)] = values
    return out


def _follow(session: Session, plan: StepPlan, lesson: Lesson | None) -> None:
    """Let the slow copy and the outputs' memories follow the step."""
    if session.slow is not None:
        session.slow.update(session.optimizer.rows)
    if session.teacher is not None:
        memories = lesson.memories if lesson else {}
        session.teacher.remember(memories, plan.numbers, session.processes)


def _set_learning_rates(session: Session, step: int, total: int) -> float:
    """Linear warm-up and decay of every group; returns the encoder's."""
    scale = linear_warmup_decay(step, total, session.config.training.warmup)
    for group in session.optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
    return session.config.training.lr * scale


def _clip(session: Session) -> Tensor:
    """Clip the gradient's norm; returns the norm before."""
    clipped = list(session.parameters.values())
    coalesce(clipped)
    for i, parameter in enumerate(clipped):
        if parameter.grad is not None and parameter.grad.is_sparse:
            clipped[i] = nn.Parameter(values(parameter.grad))  # in its place, over the same memory
            clipped[i].grad = values(parameter.grad)
    bound = session.config.training.clip or math.inf
    return torch.nn.utils.clip_grad_norm_(clipped, bound)


def _not_finite(
    session: Session, plan: StepPlan, losses: Tensor, alignment: Alignment | None, norm: Tensor
) -> tuple[str, ...]:
    """What is infinite or NaN: objectives, `DEV_GRADIENT`, or else ``gradient``.

    :param norm: of the whole gradient.
    """
    suspect, lost = ~torch.isfinite(losses), False
    if alignment is not None:
        lost = not bool(torch.isfinite(alignment.dev_norm))
        if not lost:  # else every product with it would be suspect
            suspect |= ~torch.isfinite(alignment.squared_norms) | ~torch.isfinite(alignment.dots)
    if not lost and not bool(suspect.any()) and bool(torch.isfinite(norm)):
        return ()
    names = zip(_names(session, plan), suspect.tolist(), strict=True)
    found = ((DEV_GRADIENT,) if lost else ()) + tuple(name for name, bad in names if bad)
    return found or ("gradient",)


def _names(session: Session, plan: StepPlan) -> list[str]:
    ids = session.factors.ids
    return ["end-task" if n == END_TASK else ids[n - 1] for n in plan.numbers]


def _record(
    session: Session, plan: StepPlan, losses: Tensor, alignment: Alignment | None
) -> StepRecord:
    names = _names(session, plan)
    dealt = [session.factors.ids[k] for k in plan.candidates.tolist()]
    weights = zip(dealt, plan.candidate_weights.tolist(), strict=True)
    aligned: dict[str, float] = {}
    norms: dict[str, float] = {}
    if alignment is not None:
        values = alignment.values(session.config.meta.alignment).tolist()
        sizes = alignment.squared_norms.sqrt().tolist()
        seen = alignment.observed.tolist()
        aligned = {n: v for n, v, o in zip(names, values, seen, strict=True) if o}
        norms = {n: v for n, v, o in zip(names, sizes, seen, strict=True) if o}
    return StepRecord(
        step=plan.step,
        losses=dict(zip(names, losses.tolist(), strict=True)),
        weights=dict(weights),
        alignments=aligned,
        norms=norms,
        end_task_weight=plan.end_task_weight,
        labelled_rows=plan.end_task_rows,
        rows=sum(plan.all_rows),
    )
