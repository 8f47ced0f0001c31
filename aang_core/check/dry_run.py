"""Plan a run without training it: ``aang run --dry-run``. In: RunConfig. Out: `PlanSummary`.

Every run also says how much disk it needs before its first step, and how much is free there (`disk_remark`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from aang_core.config.settings import RunConfig
from aang_core.errors import RunError
from aang_core.method.gradient.row_gradients import values
from aang_core.method.precision import precision_remark
from aang_core.method.step_plan import StepPlan
from aang_core.processes import Processes
from aang_core.registry.registry import Registry
from aang_core.train.checkpoint import KEPT
from aang_core.train.finish.final import final_epochs
from aang_core.train.finish.guard import NO_BASELINE, baseline_of, guarded, plain_run
from aang_core.train.finish.race import entrants, races, rounds
from aang_core.train.finish.refit import refits
from aang_core.train.resolve import ResolvedRun, bind_objectives, load_backbone, resolve, seed_task
from aang_core.train.session import Session, build_session
from aang_core.train.step import dropout, training
from aang_core.train.trainer import phases

_TIMED_STEPS = 2
_TIMED_ROWS = 64
_MIB = 2**20


@attrs.frozen(kw_only=True)
class PlanSummary:
    """Upper bounds and estimates, for all seeds together where nothing else is said.

    :param objectives: ids of the legal objectives.
    :param steps: most optimiser steps of a seed, without those of the final fine-tuning.
    :param final_steps: most steps of the final fine-tuning, on the end-task alone; 0 where there is none.
    :param tokens_per_step: positions of one step with its auxiliary rows, of sampled rows.
    :param tokens: most positions of training.
    :param minutes: estimated from timed steps, without early stopping.
    :param baseline: the method of the baseline that the run would also train (``--against``), or empty.
    :param baseline_minutes: what that takes beside `minutes`.
    :param memory_mib: the parts of a seed's peak memory, and their ``total``.
    :param disk_mib: the parts of what a run writes, and their ``total``.
    """

    task: str
    space: str
    method: str
    model: str
    engine: str
    seeds: tuple[int, ...]
    splits: dict[str, int]
    objectives: tuple[str, ...]
    steps: int
    final_steps: int
    rows_per_step: int
    tokens_per_step: int
    tokens: int
    seconds_per_step: float
    minutes: float
    memory_mib: dict[str, float]
    disk_mib: dict[str, float]
    remarks: tuple[str, ...]
    baseline: str = ""
    baseline_minutes: float = 0.0

    def as_mapping(self) -> dict[str, Any]:
        """Plain values."""
        return attrs.asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """For people: what, and how much."""
        return [
            ("model", self.model),
            ("rows", ", ".join(f"{name} {count}" for name, count in self.splits.items())),
            ("seeds", ", ".join(map(str, self.seeds))),
            ("objectives", f"{len(self.objectives)} of {self.space}" if self.space else "none"),
            ("steps", f"at most {self.steps} a seed, {self.rows_per_step} rows each"),
            ("final fine-tuning", f"at most {self.final_steps} steps a seed, on the task alone"),
            ("tokens", f"{self.tokens_per_step} a step, at most {self.tokens}"),
            ("engine", self.engine),
            ("time", f"about {self.minutes:.1f} minutes ({self.seconds_per_step:.2f} s a step)"),
            ("baseline", self._baseline()),
            ("memory", _parts(self.memory_mib)),
            ("disk", _parts(self.disk_mib)),
        ]

    def _baseline(self) -> str:
        if not self.baseline:
            return "none"
        both = self.minutes + self.baseline_minutes
        return (
            f"plain fine-tuning afterwards, about {self.baseline_minutes:.1f} minutes more, {both:.1f} in all "
            "(--against none: without)"
        )


def _parts(sizes: dict[str, float]) -> str:
    parts = ", ".join(f"{n} {size:.0f}" for n, size in sizes.items() if n != "total")
    return f"about {sizes['total']:.0f} MiB ({parts})"


def summarise(config: RunConfig, registry: Registry, against: str = NO_BASELINE) -> PlanSummary:
    """Resolve, bind and time a configuration; updates no parameter and writes nothing.

    :param against: as for `run`: the minutes of that baseline are timed too.
    :raises AangError: as `study.run.run` does before its first step.
    """
    resolved = resolve(config, registry)
    first = _race_summary(resolved) if races(resolved) else _summary(resolved)
    if not (baseline := baseline_of(resolved, against)):
        return first
    minutes = _summary(plain_run(resolved)).minutes
    return attrs.evolve(first, baseline=baseline, baseline_minutes=minutes)


def _race_summary(resolved: ResolvedRun) -> PlanSummary:
    """A race: every candidate in short, the costliest in full, and one of them once more on train and dev."""
    known = {name: _summary(each) for name, each in entrants(resolved).items()}
    costliest = sorted(known.values(), key=lambda each: -each.minutes)
    again = refits(resolved.config)
    plan = rounds(len(known), resolved.config.training.max_steps, again)
    longest = plan[-1][1]
    parts = [
        (each, steps / longest)
        for number, (count, steps) in enumerate(plan)
        for each in (known.values() if number == 0 else costliest[:count])
    ] + [(each, 1.0) for each in costliest[:again]]
    remarks = dict.fromkeys(remark for each in known.values() for remark in each.remarks)
    first = costliest[0]
    return attrs.evolve(
        first,
        space=resolved.space.name if resolved.space else "",
        method=f"race of {', '.join(known)}",
        objectives=tuple(dict.fromkeys(o for each in known.values() for o in each.objectives)),
        steps=sum(round(each.steps * share) for each, share in parts),
        final_steps=sum(round(each.final_steps * share) for each, share in parts),
        tokens=sum(round(each.tokens * share) for each, share in parts),
        minutes=sum(each.minutes * share for each, share in parts),
        memory_mib=max((each.memory_mib for each in known.values()), key=lambda m: m["total"]),
        disk_mib={name: 2 * size for name, size in first.disk_mib.items()},
        remarks=tuple(remarks),
    )


def _summary(resolved: ResolvedRun) -> PlanSummary:
    """One run, without a baseline."""
    config = resolved.config  # numbers in place of passes and proportions
    seed = config.seeds[0]
    task = seed_task(resolved, seed)
    backbone = load_backbone(resolved, seed)
    said: list[str] = []
    objectives = bind_objectives(resolved, task, backbone, seed, remark=said.append)
    session = build_session(
        config, seed, task, backbone, objectives, Processes(), resolved.weighting
    )
    if precision := precision_remark(session.device, config.training.precision):
        said.append(precision)
    times = 1 + refits(config)  # on train and dev, for at most as many steps
    timed = [_step(session, phase, times * steps) for phase, steps in phases(session) if steps]
    last = timed[-1] if timed else _NONE
    final = _final(session)
    memory = _memory(session)  # before evaluation, whose batches a run makes after freeing its own
    minutes = (sum(part.seconds for part in (*timed, final)) + _evaluations(session)) / 60
    return PlanSummary(
        task=task.name,
        space=resolved.space.name if resolved.space else "",
        method=config.method,
        model=resolved.model,
        engine=session.engine.kind if session.dev else "plain",
        seeds=config.seeds,
        splits={name: len(split) for name, split in task.splits.items()},
        objectives=tuple(objective.id for objective in objectives),
        steps=sum(part.steps for part in timed),
        final_steps=final.steps,
        rows_per_step=last.rows,
        tokens_per_step=last.tokens,
        tokens=len(config.seeds) * sum(part.steps * part.tokens for part in (*timed, final)),
        seconds_per_step=last.seconds / max(1, last.steps),
        minutes=minutes * len(config.seeds),
        memory_mib=memory,
        disk_mib=disk_mib(session),
        remarks=(*resolved.task.remarks, *said, *_unlike(resolved)),
    )


def _unlike(resolved: ResolvedRun) -> tuple[str, ...]:
    """What differs between the timed seed and the others."""
    config = resolved.config
    if len(config.seeds) == 1:
        return ()
    return (f"measured with seed {config.seeds[0]}, and multiplied by {len(config.seeds)} seeds",)


@attrs.frozen
class _Timed:
    """A phase: its most steps, what one of them holds, and the seconds of all."""

    steps: int
    rows: int
    tokens: int
    seconds: float


_NONE = _Timed(steps=0, rows=0, tokens=0, seconds=0.0)


def _final(session: Session) -> _Timed:
    """The final fine-tuning, by the tokens and seconds of its first step."""
    epochs, steps = final_epochs(session)
    if not epochs:
        return _NONE
    rows = session.config.training.end_task_rows
    return _timed(session, "final", lambda: session.planner.end_task_plan(0, rows), epochs * steps)


def _step(session: Session, phase: str, steps: int) -> _Timed:
    """A phase by its first step."""
    return _timed(session, phase, lambda: session.planner.plan(0, session.weights, phase), steps)


def _timed(session: Session, phase: str, planned: Callable[[], StepPlan], steps: int) -> _Timed:
    """Gradients of a step as training computes them, and no update; the faster of two runs."""
    best, tokens, rows = float("inf"), 0, 0
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        plan = planned()
        _, batch = session.planner.batch(plan, session.processes)
        if batch is None:
            raise RunError(f"the first step of the phase {phase!r} holds no rows")
        prepared = time.perf_counter() - started
        aligned = session.dev is not None and phase != "final"
        dev = _dev_gradient_seconds(session) if aligned else 0.0
        started = time.perf_counter()
        lesson = session.taught(batch, plan)
        with training(session), dropout(session, 0):
            if not aligned or session.dev_gradient is None:
                losses = session.engine.plain(lesson.batch, plan.coefficients)
            else:
                losses = session.engine.aligned(
                    lesson.batch, plan.coefficients, session.dev_gradient
                ).losses
            losses.sum().item()  # waits for the device
        # preparation runs beside the step before it, so that the longer of the two counts
        best = min(best, max(prepared, time.perf_counter() - started + dev))
        tokens, rows = batch.tokens + lesson.tokens, sum(plan.all_rows)
    return _Timed(steps=steps, rows=rows, tokens=tokens, seconds=best * steps)


def _dev_gradient_seconds(session: Session) -> float:
    """Seconds of one dev gradient, shared among the steps that use it."""
    assert session.dev is not None
    started = time.perf_counter()
    with session.engine.autocast():
        session.dev_gradient = session.dev.at(session.dev.every, None) or session.any_direction()
    return (time.perf_counter() - started) / session.dev.every


def _evaluations(session: Session) -> float:
    """Seconds of all evaluations on dev, and the one on test, from some rows."""
    settings = session.config.training
    rows = list(session.stopping[:_TIMED_ROWS])
    started = time.perf_counter()
    with session.engine.autocast():
        session.predict(rows)
    each = (time.perf_counter() - started) / len(rows)
    steps = sum(steps for _, steps in phases(session))
    times = -(-steps // settings.eval_every) + 1 + final_epochs(session)[0]
    return each * (times * len(session.stopping) + len(session.test))


def _memory(session: Session) -> dict[str, float]:
    """The peak so far (libraries and activations included), and the moments that the first update adds, in MiB."""
    trained = size_mib(session.parameters.values())
    parts = {
        "parameters": size_mib(_all(session)),
        "gradients": trained,
        "optimiser moments": 2 * trained,
        "dev gradient": size_mib(
            values(gradient) for gradient in (session.dev_gradient or {}).values()
        ),
    }
    there = sum(parts.values()) - parts["optimiser moments"]
    parts["activations and libraries"] = max(0.0, session.peak_memory_mib - there)
    return {**parts, "total": sum(parts.values())}


def _all(session: Session) -> list[Tensor]:
    """Every parameter once, frozen ones too."""
    body = [*session.model.backbone.body.parameters(), *session.model.heads.parameters()]
    return list({id(p): p for p in body}.values())


def disk_mib(session: Session) -> dict[str, float]:
    """What all seeds leave, and what the one that is running needs beside it, in MiB; text files are not counted.

    A checkpoint holds what training changes, two moments of every parameter, and where there is one the dev gradient
    with what its source remembers. The best parameters are complete before the former ones go, and the final
    fine-tuning keeps those that it began with.
    """
    config = session.config
    kept = size_mib(session.trained_tensors.values())
    trained = size_mib(session.parameters.values())
    body = size_mib(session.model.body().values())
    direction = body + size_mib(session.dev.memory.values()) if session.dev else 0.0
    state = kept + 2 * trained
    one = state + direction + (state if session.fork else 0.0)  # of a branch, within a round
    model = size_mib(session.model.backbone.body.parameters())
    trainings = 1 + guarded(config) + refits(config)
    parts = {
        "checkpoints while it runs": trainings * (KEPT * one + 2 * kept),
        "best parameters": trainings * len(config.seeds) * kept,
        "models": len(config.seeds) * (model + size_mib(session.end_task_head.parameters())),
    }
    return {**parts, "total": sum(parts.values())}


def free_mib(directory: Path) -> float:
    """What is free where a directory lies or will lie, in MiB."""
    place = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    return shutil.disk_usage(place).free / _MIB


def disk_remark(session: Session, directory: Path) -> str:
    """The bound as a sentence, with a warning where less is free."""
    need, free = disk_mib(session)["total"], free_mib(directory)
    said = f"disk: at most {need:,.0f} MiB in {directory}"
    return (
        f"{said}; only {free:,.0f} MiB are free there, so it may not end" if free < need else said
    )


def size_mib(tensors: Iterable[Tensor]) -> float:
    """MiB."""
    return sum(t.numel() * t.element_size() for t in tensors) / _MIB
