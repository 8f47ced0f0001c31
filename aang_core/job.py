"""The main job: configuration in, run directory and report out."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import save_file

from aang_core.assembly import Ground, bind_objectives, load_backbone, seed_task, settle
from aang_core.audit import audit_task, findings, seen_in_training
from aang_core.batching import BoundObjective
from aang_core.config import RunConfig
from aang_core.config_file import load_config
from aang_core.degenerate import findings_of, summary
from aang_core.errors import RunError
from aang_core.evaluation import predict, scores
from aang_core.export import export_model, write_predictions
from aang_core.fitting import Fitting, phases
from aang_core.loggers import Logged, chosen_loggers
from aang_core.processes import Processes, joined
from aang_core.progress import Spent, Watcher
from aang_core.protocols import Backbone
from aang_core.recipe import check_recipe
from aang_core.registry import Registry, load_registry
from aang_core.report import RunReport, SeedReport, seed_report, write_json
from aang_core.report_page import write_run_page
from aang_core.rows import Row
from aang_core.run_directory import fresh_directory, occupied, seed_directory
from aang_core.session import Session, build_session

Scores = dict[str, float]


def run(
    config: RunConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    registry: Registry | None = None,
    **settings: Any,
) -> RunReport:
    """Train, evaluate and export; the same as ``aang run``.

    :param config: a whole configuration; or else give its keys as keywords (``task=``, ``space=``, ``seeds=``,
        ``training={"max_steps": 60}``, …).
    :param out: the run directory; by default ``runs/TASK-SPACE-METHOD``, with a number behind it where that is taken.
    :param resume: go on with an interrupted run in `out`, from its last checkpoint; its ``config.toml`` says
        everything else, so nothing need be given.
    :raises AangError: for everything that the user can mend, before anything is written where that is possible.
    """
    if config is None and resume and out and not settings:
        config = load_config(Path(out) / "config.toml")
    chosen = config or RunConfig.from_mapping(_plain(settings))
    registry = registry or load_registry(frozenset(chosen.plugins) or None)
    ground = settle(chosen, registry)
    check_recipe(chosen)
    directory = Path(out) if out else fresh_directory(ground)
    processes = joined()
    loggers = chosen_loggers(chosen.log, registry)
    spoken = processes.first  # one process speaks for all
    watcher = Logged((spoken and watcher) or Watcher(), loggers if spoken else (), chosen)
    with occupied(directory, chosen, resume, processes), closing(watcher):
        watcher.on_begin(directory)
        audit = _audited(ground, watcher)
        seeds = [
            _one_seed(ground, n, seed_directory(directory, chosen, n), resume, watcher, processes)
            for n in chosen.seeds
        ]
    report = _report(ground, seeds, directory, audit, registry)
    if processes.first:
        write_json(directory / "report.json", report.as_mapping())
        write_run_page(directory)
    return report


def _report(
    ground: Ground,
    seeds: Sequence[SeedReport],
    directory: Path,
    audit: Mapping[str, Any],
    registry: Registry,
) -> RunReport:
    return RunReport(
        task=ground.task.name,
        space=ground.space.name if ground.space else "",
        method=ground.config.method,
        model=ground.model,
        metric=ground.task.metric,
        reads=tuple(n for n in ground.kind.reads if n in ground.task.splits["train"].column_names),
        seeds=tuple(seeds),
        remarks=tuple(ground.task.remarks),
        directory=directory,
        audit=audit,
        plugins=_provenance(registry),
    )


def _audited(ground: Ground, watcher: Watcher) -> dict[str, Any]:
    """What the audit finds in the task, after telling the user of it and of what reading the task remarked."""
    audit = audit_task(ground.task, thorough=False)
    for remark in ground.task.remarks:
        watcher.on_remark(remark)
    if found := findings(audit):
        watcher.on_remark(f"data: {'; '.join(found)} (see `aang audit`)")
    return audit


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Python's spelling of keywords: paths as strings, ``with_`` as ``with``."""
    plain = {name.rstrip("_"): value for name, value in settings.items()}
    return {n: os.fspath(v) if isinstance(v, Path) else v for n, v in plain.items()}


def _one_seed(
    ground: Ground,
    seed: int,
    directory: Path,
    resume: bool,
    watcher: Watcher,
    processes: Processes,
) -> SeedReport:
    finished = directory / "seed.json"
    if resume and finished.exists():
        return seed_report(_read(finished))
    started = Spent.now()
    session, objectives, said = _ready(ground, seed, watcher, processes)
    watcher.on_seed(session)
    fitting = Fitting(session, directory, watcher, started)
    for remark in said:
        fitting.remark(remark)
    fitting.run(resume)
    answers = _answers(session, session.test)
    test = _test_scores(ground, session, answers)
    if processes.first:
        _leave(session, objectives, directory, answers)
    report = _seed_report(fitting, test)
    if processes.first:
        write_json(finished, attrs.asdict(report))
        fitting.discard()
    return report


def _seed_report(fitting: Fitting, test: tuple[Scores | None, Scores | None]) -> SeedReport:
    """What a finished seed ended with."""
    session, progress, spent = fitting.session, fitting.progress, fitting.spent()
    return SeedReport(
        seed=session.seed,
        steps=progress.done,
        best_step=progress.best_step,
        dev=_scored(session, session.stopping, _answers(session, session.stopping)) or {},
        test=test[0],
        seconds=spent.seconds,
        peak_memory_mib=_peak_memory(session),
        engine=session.engine.kind if session.dev else "plain",
        objectives=len(session.factors.ids),
        weights=_weights(session),
        cost={**progress.cost, "cpu_seconds": spent.cpu_seconds},
        evaluations=progress.evaluations,
        remarks=tuple(fitting.remarks),
        test_deduplicated=test[1],
    )


def _ready(
    ground: Ground, seed: int, watcher: Watcher, processes: Processes
) -> tuple[Session, list[BoundObjective], list[str]]:
    """A seed's session, its objectives, and what the user should know before the first step."""
    task, backbone = seed_task(ground, seed), load_backbone(ground, seed)
    said: list[str] = []
    objectives = bind_objectives(
        ground, task, backbone, seed, remark=said.append, progress=watcher.on_preparation
    )
    cut = _truncated(backbone)
    session = build_session(ground.config, seed, task, backbone, objectives, processes)
    said += _remarks(session, objectives, _truncated(backbone) - cut)
    return session, objectives, said


def _leave(
    session: Session,
    objectives: Sequence[BoundObjective],
    directory: Path,
    answers: Sequence[torch.Tensor],
) -> None:
    """Write what outlives the run of a seed, beside its report."""
    if answers:
        write_predictions(session.task, answers, directory)
    export_model(session, directory / "model")
    _write_states(objectives, directory)


def _remarks(session: Session, objectives: Sequence[BoundObjective], cut: int) -> Iterator[str]:
    """What the user should know before the first step; `cut` examples of the task were too long."""
    if cut:
        examples = sum(map(len, session.task.splits.values()))
        longest = session.model.backbone.max_length
        yield f"{cut} of {examples} examples are longer than {longest} positions and were cut"
    if warning := summary(findings_of(objectives, session.seed)):
        yield f"{warning} (`aang show` says more)"


def _test_scores(
    ground: Ground, session: Session, answers: Sequence[torch.Tensor]
) -> tuple[Scores | None, Scores | None]:
    """On all of test, and on its rows whose text does not stand in train (None where that is every row)."""
    rows, seen = session.test, seen_in_training(ground.task)
    unseen = [i for i, row in enumerate(rows) if not seen[row.origin.document]] if any(seen) else []
    part = _scored(session, [rows[i] for i in unseen], [answers[i] for i in unseen])
    return _scored(session, rows, answers), part


def _truncated(backbone: Backbone) -> int:
    """How many examples the encoder has cut so far, where it counts them."""
    return int(getattr(backbone, "truncated", 0))


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise RunError(f"{path} is damaged ({cause}); delete it and resume again") from cause
    return found


def _answers(session: Session, rows: Sequence[Row]) -> list[torch.Tensor]:
    """The chosen checkpoint's logits for each row."""
    return predict(session.model.backbone, session.end_task_head, session.task, rows)


def _scored(
    session: Session, rows: Sequence[Row], answers: Sequence[torch.Tensor]
) -> Scores | None:
    """Every metric on these rows; None where there are none, or they have no labels."""
    if not rows or any(row.label is None for row in rows):
        return None
    return scores(session.task, answers, rows)


def _weights(session: Session) -> dict[str, Any]:
    """What the last step weighed by; equal weights for ``static``, empty where it was the end-task's alone."""
    if phases(session)[-1][0] == "end-task":
        return {}
    final = session.weights.weights(session.factors).tolist()
    return {
        "objectives": dict(zip(session.factors.ids, final, strict=True)),
        "stages": session.weights.stage_weights(session.factors),
        "end_task": session.weights.end_task_weight,
    }


def _peak_memory(session: Session) -> float:
    """The process's greatest resident memory, or on CUDA the device's greatest allocation, in MiB."""
    if session.device.type == "cuda":
        return torch.cuda.max_memory_allocated(session.device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _write_states(objectives: Sequence[BoundObjective], directory: Path) -> None:
    """What outputs fitted on their corpora (class weights, idf), one file for all; objectives share it by source."""
    tensors: dict[str, torch.Tensor] = {}
    for objective in objectives:
        data, *_, output = objective.id.split("/")
        for name, tensor in objective.output.state().items():
            tensors[f"{data}/{output}/{name}"] = tensor.contiguous()
    if tensors:
        save_file(tensors, directory / "fitted.safetensors")


def _provenance(registry: Registry) -> dict[str, str]:
    """Distribution and version of every plugin that is loaded."""
    entries = [*registry.primitives.values(), *registry.spaces.values()]
    return {e.plugin: f"{e.distribution} {e.version}" for e in entries}
