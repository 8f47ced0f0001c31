"""One seed of a run, from its session to its files: trained, guarded against harm, scored once on test.

Its last file is ``seed.json``; a seed that has it is finished.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from safetensors.torch import save_file

from aang_core.analysis.history import alignment_estimates, read_history
from aang_core.batch.packing import BoundObjective
from aang_core.batch.rows import Row
from aang_core.data.audit import seen_in_training
from aang_core.errors import RunError
from aang_core.files import json_of, same_file, write_text
from aang_core.machine import kept_pages
from aang_core.method.gradient.engine import TOLERANCE
from aang_core.method.gradient.metagrad import layers_of
from aang_core.processes import Processes
from aang_core.rundir.card import add_results
from aang_core.rundir.report import SeedReport, seed_report, write_json
from aang_core.study.race import FOLDER, raced
from aang_core.study.training import (
    SeedJob,
    Trainings,
    clear,
    guarded_training,
    refitted,
    weights_of,
)
from aang_core.train.checkpoint import discard
from aang_core.train.evaluation import scores
from aang_core.train.finish.export import export_model, write_predictions
from aang_core.train.finish.guard import PLAIN
from aang_core.train.finish.race import races
from aang_core.train.finish.refit import REFIT, Found, account_of, refits
from aang_core.train.resolve import ResolvedRun
from aang_core.train.session import Session, forget_peak
from aang_core.train.trainer import Trainer

Scores = dict[str, float]

FINISHED = "seed.json"
"""A seed's report, the last file that it writes."""


@kept_pages()
def run_seed(resolved: ResolvedRun, job: SeedJob) -> SeedReport:
    """Train one seed; write its model, predictions and ``seed.json`` into its directory."""
    directory, processes = job.directory, job.processes
    if job.resume and (directory / FINISHED).exists():
        return taken_seed(directory, processes)
    forget_peak()
    last, objectives, report = _trained(resolved, job)
    session = last.session
    answers = session.predict(session.test)
    test, unseen = _test_scores(session, answers)
    peak = max(report.peak_memory_mib, session.peak_memory_mib)
    report = attrs.evolve(report, test=test, test_deduplicated=unseen, peak_memory_mib=peak)
    if processes.is_main:
        _leave(session, objectives, directory, answers)
        known = {"dev": None if report.refit else report.dev, "test": report.test}
        card = directory / "model" / "README.md"
        add_results(card, session.task.name, {split: s for split, s in known.items() if s})
        write_json(directory / FINISHED, attrs.asdict(report))
        _clear(directory)
    return report


Last = tuple[Trainer, Sequence[BoundObjective], SeedReport]
"""The training whose model is exported, its objectives, and the report of the seed without test."""


def _trained(resolved: ResolvedRun, job: SeedJob) -> Last:
    """Its search, or that of a finished run, and the training after it where the run has one."""
    if job.search is not None:
        last = _again(job.search.found(resolved), job.search.report, job)
        if job.processes.is_main:
            history = job.search.history  # a copy: the two runs belong to themselves
            write_text(job.directory / history.name, history.read_text(encoding="utf-8"))
        return last
    done = raced(resolved, job) if races(resolved) else guarded_training(resolved, job)
    if done.race and job.processes.is_main:
        same_file(done.search.history, job.directory / done.search.history.name)
    report = _seed_report(done)
    if refits(resolved.config):
        return _again(done.found, report, job)
    return done.kept, done.objectives, report


def _again(found: Found, report: SeedReport, job: SeedJob) -> Last:
    """The training after a search. :param report: of the search."""
    last, objectives = refitted(found, job)
    account, more = account_of(last), last.spent()
    job.callbacks.on_remark(account["said"])
    added = {**last.progress.cost, "cpu_seconds": more.cpu_seconds}
    report = attrs.evolve(
        report,
        refit=account,
        remarks=(*report.remarks, account["said"]),
        cost={name: value + added.get(name, 0) for name, value in report.cost.items()},
        seconds=report.seconds + more.seconds,
    )
    return last, objectives, report


def taken_seed(directory: Path, processes: Processes) -> SeedReport:
    """The report of a finished seed, read back."""
    path = directory / FINISHED
    try:
        report = seed_report(json_of(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as cause:
        raise RunError(f"{path} is damaged ({cause}); delete it and resume again") from cause
    if processes.is_main:  # the run may have been killed before it came to this
        _clear(directory)
    return report


def _clear(directory: Path) -> None:
    """Remove what only an unfinished seed needs."""
    discard(directory)
    discard(directory / PLAIN)
    discard(directory / REFIT)
    for place in (directory / FOLDER).glob("*"):
        clear(place)


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


def _seed_report(done: Trainings) -> SeedReport:
    """The report of a search: dev of the model that is kept, the course of the search, the cost of all."""
    search, spent = done.search, done.spent
    session, progress = search.session, search.progress
    return SeedReport(
        seed=session.seed,
        steps=progress.done,
        best_step=progress.best_step,
        dev=done.kept.progress.best_metrics,
        test=None,
        seconds=spent.seconds,
        peak_memory_mib=session.peak_memory_mib,
        engine=session.engine.kind if session.dev else "plain",
        engine_check=_engine_check(session),
        alignment_layers=_alignment_layers(session),
        objectives=len(session.factors.ids),
        weights=weights_of(session),
        cost={**done.cost, "cpu_seconds": spent.cpu_seconds},
        evaluations=progress.evaluations,
        remarks=tuple(search.remarks),
        guard=done.guard,
        race=done.race,
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


def _alignment_layers(session: Session) -> dict[str, int] | None:
    """Over how many of the encoder's layers gradients were compared; None for a method without alignments."""
    if session.dev is None:
        return None
    used, of = (len(layers_of(n)) for n in (session.model.compared(), session.model.body()))
    return {"used": used, "of": of}


def _leave(
    session: Session,
    objectives: Sequence[BoundObjective],
    directory: Path,
    answers: Sequence[torch.Tensor],
) -> None:
    """Write predictions, the model, and what outputs fitted (such as idf) beside the report."""
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


def _test_scores(
    session: Session, answers: Sequence[torch.Tensor]
) -> tuple[Scores | None, Scores | None]:
    """Scores on all of test, and on its rows whose text is not in train (None if that is every row)."""
    rows, seen = session.test, seen_in_training(session.task)
    unseen = [i for i, row in enumerate(rows) if not seen[row.origin.document]] if any(seen) else []
    part = _scored(session, [rows[i] for i in unseen], [answers[i] for i in unseen])
    return _scored(session, rows, answers), part


def _scored(
    session: Session, rows: Sequence[Row], answers: Sequence[torch.Tensor]
) -> Scores | None:
    """Every metric on these rows; None without rows or labels."""
    if not rows or any(row.label is None for row in rows):
        return None
    return scores(session.task, answers, rows)
