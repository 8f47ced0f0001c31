"""One training of a seed, from a resolved run to the best parameters; and all that a seed trains."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.batch.packing import BoundObjective
from aang_core.batch.protocols import Backbone
from aang_core.check.dry_run import disk_remark
from aang_core.check.first_batch import check_first_batch
from aang_core.check.sanity import findings_of, summary
from aang_core.processes import Processes
from aang_core.study.searched import Searched
from aang_core.train.callbacks import Callbacks, Spent, made_callbacks
from aang_core.train.finish.guard import PLAIN, guarded, plain_run, verdict
from aang_core.train.finish.refit import REFIT, Found, refit_run
from aang_core.train.loggers import Logged
from aang_core.train.resolve import ResolvedRun, bind_objectives, load_backbone, seed_task
from aang_core.train.session import Session, build_session
from aang_core.train.trainer import Trainer, phases


@attrs.frozen(eq=False, kw_only=True)
class SeedJob:
    """A seed to be trained.

    :param directory: of the training. :param resume: whether what lies there is kept, or continued.
    :param search: of a finished run, in place of its own; None where there is none.
    :param callbacks: hear of it. :param processes: share every step.
    """

    seed: int
    directory: Path
    resume: bool
    callbacks: Callbacks
    processes: Processes
    search: Searched | None = None

    def beside(self, name: str) -> SeedJob:
        """A further training of the seed, in a folder of its own.

        Loggers do not follow it: the curves of several trainings would run into each other.
        """
        unlogged = self.callbacks.without(Logged)
        return attrs.evolve(self, directory=self.directory / name, callbacks=unlogged)


@attrs.frozen(eq=False, kw_only=True)
class Trainings:
    """All that a seed has trained until dev chose.

    :param resolved: the run that the search carried out, of a race the candidate's.
    :param search: the training whose course is reported. :param kept: the one whose model dev chose.
    :param objectives: of `kept`.
    :param cost: labelled rows, rows and tokens of all trainings, and skipped steps.
    :param spent: the time of all of them.
    :param guard: as `guard.verdict` says. :param race: as `race.verdict` says.
    """

    resolved: ResolvedRun
    search: Trainer
    kept: Trainer
    objectives: Sequence[BoundObjective]
    cost: Mapping[str, int]
    spent: Spent
    guard: Mapping[str, Any] | None = None
    race: Mapping[str, Any] | None = None

    @property
    def found(self) -> Found:
        """What a training after it needs."""
        session, progress = self.kept.session, self.kept.progress
        return Found(
            resolved=self.resolved,
            config=session.config,
            evaluations=progress.evaluations,
            best_is_mean=progress.best_is_mean,
            weights=weights_of(session),
        )


def guarded_training(resolved: ResolvedRun, job: SeedJob) -> Trainings:
    """One training, and where the run is guarded the plain one beside it."""
    search, objectives = trained(resolved, job)
    cost: Counter[str] = Counter(search.progress.cost)
    kept, judged = search, None
    if guarded(resolved.config):
        said = f"seed {job.seed}: plain fine-tuning at equal tokens, to compare on dev"
        job.callbacks.on_remark(said)
        plain, _ = trained(plain_run(resolved), job.beside(PLAIN), disk=False)
        judged = verdict(search, plain)
        search.remark(judged["said"])
        kept = plain if judged["kept"] == PLAIN else search
        cost.update(plain.progress.cost)
    return Trainings(
        resolved=resolved,
        search=search,
        kept=kept,
        objectives=objectives,
        cost=cost,
        spent=search.spent(),  # its clock has run on beside the plain one
        guard=judged,
    )


def refitted(found: Found, job: SeedJob) -> tuple[Trainer, list[BoundObjective]]:
    """One training more: on train and dev, by what the kept one has found."""
    said = f"seed {job.seed}: once more on train and dev, with the length and weights found"
    job.callbacks.on_remark(said)
    again = job.beside(REFIT)
    resolved = refit_run(found, job.seed, again.directory)
    job.processes.barrier()  # for the one that writes the weights
    return trained(resolved, again, disk=False)


def weights_of(session: Session) -> dict[str, Any]:
    """The weights of the last step; equal ones for ``static``, empty if it trained the end-task alone."""
    if phases(session)[-1][0] == "end-task":
        return {}
    final = session.weights.weights(session.factors).tolist()
    return {
        "objectives": dict(zip(session.factors.ids, final, strict=True)),
        "stages": session.weights.stage_weights(session.factors),
        "end_task": session.weights.end_task_weight,
    }


def clear(directory: Path) -> None:
    """Remove the checkpoints of trainings that will not be continued, the best parameters too."""
    shutil.rmtree(directory / "checkpoint", ignore_errors=True)


def trained(
    resolved: ResolvedRun, job: SeedJob, *, disk: bool = True
) -> tuple[Trainer, list[BoundObjective]]:
    """Train to the end. Returns the training, its best parameters loaded, and its objectives.

    :param disk: whether the user hears what it needs of the disk.
    """
    started = Spent.now()
    made = made_callbacks(resolved.config, resolved.registry)
    everyone = Callbacks([*job.callbacks.members, *made])
    session, objectives, said = _ready(resolved, job.seed, everyone, job.processes)
    if disk and job.processes.is_main and job.seed == resolved.config.seeds[0]:
        everyone.on_remark(disk_remark(session, job.directory))
    everyone.on_train_begin(session)
    trainer = Trainer(session, job.directory, everyone, started)
    for remark in said:
        trainer.remark(remark)
    trainer.run(job.resume)
    return trainer, objectives


def _ready(
    resolved: ResolvedRun, seed: int, callbacks: Callbacks, processes: Processes
) -> tuple[Session, list[BoundObjective], list[str]]:
    """A seed's session, its objectives, and remarks for the user."""
    task, backbone = seed_task(resolved, seed), load_backbone(resolved, seed)
    said: list[str] = []
    objectives = bind_objectives(
        resolved, task, backbone, seed, remark=said.append, progress=callbacks.on_preparation
    )
    cut = _truncated(backbone)
    session = build_session(
        resolved.config, seed, task, backbone, objectives, processes, resolved.weighting
    )
    check_first_batch(session.model, objectives, seed)
    said += _remarks(session, objectives, _truncated(backbone) - cut)
    return session, objectives, said


def _remarks(session: Session, objectives: Sequence[BoundObjective], cut: int) -> Iterator[str]:
    """Remarks before the first step. :param cut: examples that were too long."""
    if cut:
        examples = sum(map(len, session.task.splits.values()))
        longest = session.model.backbone.max_length
        yield f"{cut} of {examples} examples are longer than {longest} positions and were cut"
    if warning := summary(findings_of(objectives, session.seed)):
        yield f"{warning} (`aang show` says more)"


def _truncated(backbone: Backbone) -> int:
    """How many examples the encoder has cut so far, if it counts them."""
    return int(getattr(backbone, "truncated", 0))
