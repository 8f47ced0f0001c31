"""The race of a seed: train its candidates, round by round, and keep the model that dev prefers.

`train.finish.race` says who trains how long. ``race/NAME-STEPS/`` holds each training: its ``history.jsonl`` and, once
it is finished, ``tried.json``. Checkpoints stay only of the best so far, so a race needs room for two trainings. A race
that was interrupted keeps what is finished.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import attrs

from aang_core.batch.packing import BoundObjective
from aang_core.errors import RunError
from aang_core.files import json_of
from aang_core.rundir.report import write_json
from aang_core.study.training import SeedJob, Trainings, clear, trained
from aang_core.train.callbacks import Spent
from aang_core.train.finish.race import (
    Tried,
    best_of,
    entrants,
    in_short,
    qualified,
    rounds,
    steps_of,
    verdict,
)
from aang_core.train.finish.refit import refits
from aang_core.train.resolve import ResolvedRun
from aang_core.train.trainer import Trainer

FOLDER, TRIED = "race", "tried.json"


def raced(resolved: ResolvedRun, job: SeedJob) -> Trainings:
    """Carry out the race of a seed."""
    lane = _Lane(job.beside(FOLDER))
    known = entrants(resolved, job.callbacks.on_remark)
    names, steps = list(known), resolved.config.training.max_steps
    plan = rounds(len(names), steps, refits(resolved.config))
    for number, (count, short) in enumerate(plan, 1):
        if number > 1:
            names = qualified(lane.round, count)
        lane.round = []
        for name in names:
            said = f"race, round {number} of {len(plan)}: {name}, at most {short} steps"
            job.callbacks.on_remark(f"seed {job.seed}: {said}")
            lane.run(name, in_short(known[name], short))
    return lane.finish(known, resolved.task.metric)


class _Lane:
    """What a race has trained so far. :ivar tried: all of it. :ivar round: that of the present round.
    :ivar leader: the best training with its objectives, where it ran in this process.
    """

    def __init__(self, job: SeedJob) -> None:
        self.job = job
        self.tried: list[Tried] = []
        self.round: list[Tried] = []
        self.leader: tuple[Trainer, list[BoundObjective]] | None = None

    def run(self, name: str, resolved: ResolvedRun) -> None:
        """Train one candidate, or take what it left when it was finished."""
        steps = steps_of(resolved)
        known = [each for each in self.tried if (each.name, each.steps) == (name, steps)]
        if known:  # a probe takes no steps, so that there is nothing to train in full
            self.round += known
            return
        own, fresh = self.job.beside(f"{name}-{steps}"), None
        found = _tried(own.directory) if own.resume else None
        if found is None:
            fresh = trained(resolved, own, disk=not self.tried)
            found = _outcome(name, steps, fresh[0])
        self.tried.append(found)
        self.round.append(found)
        if best_of(self.tried) is found:
            self._clear_all_but(own.directory)
            self.leader = fresh
        elif own.processes.is_main:
            clear(own.directory)
        if fresh is not None and own.processes.is_main:
            write_json(own.directory / TRIED, attrs.asdict(found))
        own.processes.barrier()  # until what is finished can be read

    def finish(self, known: Mapping[str, ResolvedRun], metric: str) -> Trainings:
        """The best training, its parameters loaded, and what the race has cost."""
        best = best_of(self.tried)
        if not math.isfinite(best.score):
            raise RunError(
                f"seed {self.job.seed}: dev {metric} was not finite in any training of the race; expected a finite "
                "score in at least one. Lower training.lr, and begin again with another --out"
            )
        own = self.job.beside(f"{best.name}-{best.steps}")
        trainer, objectives = self.leader or trained(
            in_short(known[best.name], best.steps), own, disk=False
        )
        found = verdict(self.tried, metric)
        trainer.remark(found["said"])
        cost: Counter[str] = Counter()
        for each in self.tried:
            cost.update(each.cost)
        return Trainings(
            resolved=known[best.name],
            search=trainer,
            kept=trainer,
            objectives=objectives,
            cost=cost,
            spent=Spent(
                sum(each.seconds for each in self.tried),
                sum(each.cpu_seconds for each in self.tried),
            ),
            race=found,
        )

    def _clear_all_but(self, place: Path) -> None:
        if self.job.processes.is_main:
            for other in self.job.directory.iterdir():
                if other != place:
                    clear(other)


def _outcome(name: str, steps: int, trainer: Trainer) -> Tried:
    progress, spent = trainer.progress, trainer.spent()
    score = progress.best_score
    return Tried(
        name=name,
        steps=steps,
        best_step=progress.best_step,
        score=-math.inf if score is None else score,
        dev=progress.best_metrics,
        cost=progress.cost,
        seconds=spent.seconds,
        cpu_seconds=spent.cpu_seconds,
    )


def _tried(place: Path) -> Tried | None:
    """What a finished training has left; None where it is not finished.

    :raises RunError: where the file is damaged.
    """
    path = place / TRIED
    if not path.is_file():
        return None
    try:
        kept = json_of(path.read_text(encoding="utf-8"))
        score = -math.inf if kept["score"] is None else kept["score"]
        return Tried(**{**kept, "score": score})
    except (OSError, ValueError, TypeError, KeyError) as cause:
        raise RunError(f"{path} is damaged ({cause}); delete it and resume again") from cause
