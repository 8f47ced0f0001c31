"""One seed of a run, from its session to its files: trained, guarded against harm, scored once on test.

Its last file is ``seed.json``; a seed that has it is finished.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import save_file

from aang_core.analysis.history import alignment_estimates, read_history
from aang_core.batch.packing import BoundObjective
from aang_core.batch.protocols import Backbone
from aang_core.batch.rows import Row
from aang_core.check.dry_run import disk_remark
from aang_core.check.first_batch import check_first_batch
from aang_core.check.sanity import findings_of, summary
from aang_core.data.audit import seen_in_training
from aang_core.errors import RunError
from aang_core.files import json_of
from aang_core.method.gradient.engine import TOLERANCE
from aang_core.processes import Processes
from aang_core.rundir.card import add_results
from aang_core.rundir.report import SeedReport, seed_report, write_json
from aang_core.train.callbacks import Callbacks, Spent, made_callbacks
from aang_core.train.checkpoint import discard
from aang_core.train.evaluation import scores
from aang_core.train.finish.export import export_model, write_predictions
from aang_core.train.finish.guard import PLAIN, guarded, plain_run, verdict
from aang_core.train.finish.refit import REFIT, account_of, refit_run, refits
from aang_core.train.loggers import Logged
from aang_core.train.resolve import (
    ResolvedRun,
    bind_objectives,
    load_backbone,
    seed_task,
)
from aang_core.train.session import Session, build_session, forget_peak
from aang_core.train.trainer import Trainer, phases

Scores = dict[str, float]

FINISHED = "seed.json"
"""A seed's report, the last file that it writes."""


def run_seed(
    resolved: ResolvedRun,
    seed: int,
    directory: Path,
    resume: bool,
    callbacks: Callbacks,
    processes: Processes,
) -> SeedReport:
    """Train one seed; write its model, predictions and ``seed.json`` into `directory`.

    :param resume: keep the seed if it is finished, else continue it.
    """
    if resume and (directory / FINISHED).exists():
        return taken_seed(directory, processes)
    forget_peak()
    search, objectives = _trained(resolved, seed, directory, resume, callbacks, processes)
    trainings, kept, judged = [search], search, None
    if guarded(resolved.config):
        plain, judged = _judged(resolved, search, directory, resume, callbacks, processes)
        kept = plain if judged["kept"] == PLAIN else search
        trainings.append(plain)
    last = kept
    if refits(resolved.config):
        last, objectives = _refitted(resolved, kept, directory, resume, callbacks, processes)
        search.remark(account_of(last)["said"])
        trainings.append(last)
    answers = last.session.predict(
        last.session.test
    )  # by the checkpoint that dev chose, or the refitted model
    test = _test_scores(last.session, answers)
    report = _seed_report(search, kept, trainings, test, judged)
    if last is not kept:
        report = attrs.evolve(report, refit=account_of(last))
    if processes.is_main:
        _leave(last.session, objectives, directory, answers)
        known = {"dev": report.dev if last is kept else None, "test": report.test}
        card = directory / "model" / "README.md"
        add_results(card, kept.session.task.name, {split: s for split, s in known.items() if s})
        write_json(directory / FINISHED, attrs.asdict(report))
        for training in trainings:
            training.discard()
    return report


def _judged(
    resolved: ResolvedRun,
    search: Trainer,
    directory: Path,
    resume: bool,
    callbacks: Callbacks,
    processes: Processes,
) -> tuple[Trainer, dict[str, Any]]:
    """Plain fine-tuning beside the search, and what dev says of the two."""
    seed, unlogged = search.session.seed, callbacks.without(Logged)
    callbacks.on_remark(f"seed {seed}: plain fine-tuning at equal tokens, to compare on dev")
    plain, _ = _trained(plain_run(resolved), seed, directory / PLAIN, resume, unlogged, processes)
    judged = verdict(search, plain)
    search.remark(judged["said"])
    return plain, judged


def _refitted(
    resolved: ResolvedRun,
    kept: Trainer,
    directory: Path,
    resume: bool,
    callbacks: Callbacks,
    processes: Processes,
) -> tuple[Trainer, list[BoundObjective]]:
    """Train once more on train and dev, by what the training that is kept has found; returns as `_trained`."""
    seed, place = kept.session.seed, directory / REFIT
    callbacks.on_remark(
        f"seed {seed}: once more on train and dev, with the length and weights found"
    )
    again = refit_run(resolved, kept, _weights(kept.session), place)
    processes.barrier()  # for the one that writes the weights
    return _trained(again, seed, place, resume, callbacks.without(Logged), processes)


def taken_seed(directory: Path, processes: Processes) -> SeedReport:
    """The report of a finished seed, read back."""
    path = directory / FINISHED
    try:
        report = seed_report(json_of(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as cause:
        raise RunError(f"{path} is damaged ({cause}); delete it and resume again") from cause
    if processes.is_main:  # the run may have been killed before it came to this
        discard(directory)
        discard(directory / PLAIN)
        discard(directory / REFIT)
    return report


def _trained(
    resolved: ResolvedRun,
    seed: int,
    directory: Path,
    resume: bool,
    callbacks: Callbacks,
    processes: Processes,
) -> tuple[Trainer, list[BoundObjective]]:
    """Train to the end. Returns the training, its best parameters loaded, and its objectives."""
    started = Spent.now()
    everyone = Callbacks([*callbacks.members, *made_callbacks(resolved.config, resolved.registry)])
    session, objectives, said = _ready(resolved, seed, everyone, processes)
    if processes.is_main and seed == resolved.config.seeds[0]:
        everyone.on_remark(disk_remark(session, directory))
    everyone.on_train_begin(session)
    trainer = Trainer(session, directory, everyone, started)
    for remark in said:
        trainer.remark(remark)
    trainer.run(resume)
    return trainer, objectives


def _alignments(search: Trainer) -> dict[str, dict[str, float | None]] | None:
    """Mean and standard error of every objective's alignments, in the process that wrote the history; else None.

    The error is None after a single step.
    """
    if not search.session.processes.is_main:
        return None
    found = alignment_estimates(read_history(search.history))
    return {
        e.id: {
            "mean": e.mean,
            "error": e.error if math.isfinite(e.error) else None,
            "steps": e.count,
        }
        for e in found
    }


def _seed_report(
    search: Trainer,
    kept: Trainer,
    trainings: Sequence[Trainer],
    test: tuple[Scores | None, Scores | None],
    judged: Mapping[str, Any] | None,
) -> SeedReport:
    """The report of a seed: scores of the model that is `kept`, the course of the `search`, the cost of both."""
    session, progress = search.session, search.progress
    cost: Counter[str] = Counter()
    for training in trainings:
        cost.update(training.progress.cost)
    spent = search.spent()  # its clock has run on beside the others
    return SeedReport(
        seed=session.seed,
        steps=progress.done,
        best_step=progress.best_step,
        dev=kept.progress.best_metrics,
        test=test[0],
        seconds=spent.seconds,
        peak_memory_mib=session.peak_memory_mib,
        engine=session.engine.kind if session.dev else "plain",
        engine_check=_engine_check(session),
        objectives=len(session.factors.ids),
        weights=_weights(session),
        cost={**cost, "cpu_seconds": spent.cpu_seconds},
        evaluations=progress.evaluations,
        remarks=tuple(search.remarks),
        test_deduplicated=test[1],
        guard=judged,
        head_parameters=session.head_parameters,
        train_rows=len(session.task.splits["train"]),
        alignments=_alignments(search),
        merges=progress.merges if session.fork else None,
    )


def _engine_check(session: Session) -> dict[str, float] | None:
    """How far the one-backward engine was from the loop on the first batch; None if they were not compared."""
    gap = session.engine.gap
    if gap is None:
        return None
    return {"disagreement": gap if math.isfinite(gap) else sys.float_info.max, "allowed": TOLERANCE}


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


def _leave(
    session: Session,
    objectives: Sequence[BoundObjective],
    directory: Path,
    answers: Sequence[torch.Tensor],
) -> None:
    """Write predictions, the model, and what outputs fitted on their corpora (class weights, idf) beside the report."""
    if answers:
        write_predictions(session.task, answers, session.test, directory)
    export_model(session, directory / "model")
    tensors: dict[str, torch.Tensor] = {}
    for objective in objectives:  # those of one source share what an output fitted
        data, *_, output = objective.id.split("/")
        for name, tensor in objective.output.state().items():
            tensors[f"{data}/{output}/{name}"] = tensor.contiguous()
    if tensors:
        save_file(tensors, directory / "fitted.safetensors")


def _remarks(session: Session, objectives: Sequence[BoundObjective], cut: int) -> Iterator[str]:
    """Remarks before the first step. :param cut: examples that were too long."""
    if cut:
        examples = sum(map(len, session.task.splits.values()))
        longest = session.model.backbone.max_length
        yield f"{cut} of {examples} examples are longer than {longest} positions and were cut"
    if warning := summary(findings_of(objectives, session.seed)):
        yield f"{warning} (`aang show` says more)"


def _test_scores(
    session: Session, answers: Sequence[torch.Tensor]
) -> tuple[Scores | None, Scores | None]:
    """Scores on all of test, and on its rows whose text is not in train (None if that is every row)."""
    rows, seen = session.test, seen_in_training(session.task)
    unseen = [i for i, row in enumerate(rows) if not seen[row.origin.document]] if any(seen) else []
    part = _scored(session, [rows[i] for i in unseen], [answers[i] for i in unseen])
    return _scored(session, rows, answers), part


def _truncated(backbone: Backbone) -> int:
    """How many examples the encoder has cut so far, if it counts them."""
    return int(getattr(backbone, "truncated", 0))


def _scored(
    session: Session, rows: Sequence[Row], answers: Sequence[torch.Tensor]
) -> Scores | None:
    """Every metric on these rows; None without rows or labels."""
    if not rows or any(row.label is None for row in rows):
        return None
    return scores(session.task, answers, rows)


def _weights(session: Session) -> dict[str, Any]:
    """The weights of the last step; equal ones for ``static``, empty if it trained the end-task alone."""
    if phases(session)[-1][0] == "end-task":
        return {}
    final = session.weights.weights(session.factors).tolist()
    return {
        "objectives": dict(zip(session.factors.ids, final, strict=True)),
        "stages": session.weights.stage_weights(session.factors),
        "end_task": session.weights.end_task_weight,
    }
