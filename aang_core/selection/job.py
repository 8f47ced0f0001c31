"""Choosing auxiliary data for a target (FastMTL, EMNLP 2021). In: settings. Out: a directory with every row ranked.

Checks, then the selector's preparation, then scores in shards, then the ranking. An interrupted job continues there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from aang_core.analysis.page.plots import available
from aang_core.batch.protocols import no_op
from aang_core.config.file import from_keywords
from aang_core.config.settings import RunConfig
from aang_core.data.auxiliary import ROWS, SCHEMA, SUMMARY, Selection, read_selection
from aang_core.errors import ConfigError, RunError
from aang_core.files import load_tensors, replacing, save_tensors
from aang_core.registry.records import Selector, load_factory
from aang_core.registry.registry import Registered, Registry, load_registry
from aang_core.rundir.directory import unused_directory
from aang_core.rundir.report import versions, write_json
from aang_core.selection.directory import WORK, Clock, begun_with, check_data, selection_directory
from aang_core.selection.picture import write_picture
from aang_core.selection.pools import Checked, checked, load_pools, scan
from aang_core.selection.protocols import BoundSelector, SelectionContext
from aang_core.selection.scoring import Shards
from aang_core.selection.settings import SelectionConfig, resolved_options
from aang_core.train.callbacks import Spent
from aang_core.train.resolve import ResolvedRun, load_backbone, resolve, seed_task

_PREPARED = "prepared.safetensors"


def select(
    config: SelectionConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[str, int, int], None] = no_op,
    remark: Callable[[str], None] = no_op,
    begun: Callable[[Path], None] = no_op,
    registry: Registry | None = None,
    **settings: Any,
) -> Selection:
    """Rank the examples of other tasks by their worth for a target; the same as ``aang select``.

    :param config: all settings; or else give them as keywords (``target=``, ``from_=``, ``selector=``,
        ``options={"epochs": 3}``, …); of a single pool `from_` may be the pool itself.
    :param out: the directory; by default ``selections/TARGET-SELECTOR``, with a number behind it where that is taken.
    :param resume: go on with a broken selection in `out`, whose ``selection.toml`` says everything else; one that has
        ended is read.
    :param progress, remark: as in `protocols.Binding`. :param begun: told the directory once it is taken.
    :raises AangError: for everything that the user can mend, before any training where that is possible.
    """
    started = Spent.now()
    if config is None and resume and out and not settings:
        config = begun_with(Path(out))
    given = from_keywords(settings)
    if isinstance(given.get("from"), str):
        given["from"] = [given["from"]]
    chosen = config or SelectionConfig.from_mapping(given)
    registry = registry or load_registry(frozenset(chosen.plugins) or None)
    if chosen.selector not in registry.selectors:
        raise ConfigError(registry.unknown("selector", chosen.selector, registry.selectors))
    entry = registry.selectors[chosen.selector]
    options = resolved_options(entry.record, chosen.options)
    base = resolve(_as_run(chosen), registry)
    name = [base.task.name, entry.record.name]
    directory = Path(out) if out else unused_directory("selections", name)
    place = selection_directory(directory, chosen)
    if resume:
        place.check(resume)
        if (directory / SUMMARY).is_file():
            return read_selection(directory)
    job = _prepared_job(chosen, base, entry, options, progress, remark)
    selector: BoundSelector = load_factory(entry.record.factory)(job.resolved)
    with place.taken(resume):
        check_data(directory, job.digests, resume)
        begun(directory)
        return job.run(selector, directory, Clock(directory, started))


def _prepared_job(
    config: SelectionConfig,
    base: ResolvedRun,
    entry: Registered[Selector],
    options: Mapping[str, Any],
    progress: Callable[[str, int, int], None],
    remark: Callable[[str], None],
) -> _Job:
    """Everything read and checked; no encoder is loaded yet."""
    said: list[str] = []

    def noted(text: str) -> None:
        said.append(text)
        remark(text)

    target = seed_task(base, config.seed)
    pools = load_pools(config.from_, base.kind.reads, base.registry, config.drop_empty)
    for text in target.remarks:
        noted(text)
    for pool in pools:
        for text in pool.task.remarks if pool.task is not None else ():
            noted(f"{pool.name}: {text}")
    found = checked(config, base.task, target, pools, progress)
    resolved = SelectionContext(
        target=target,
        examples=found.examples,
        target_sample=found.target_sample,
        pools=pools,
        samples=found.samples,
        options=options,
        seed=config.seed,
        registry=base.registry,
        load=lambda: load_backbone(base, config.seed),
        batch_tokens=config.batch_tokens,
        precision=config.precision,
        progress=progress,
        remark=noted,
    )
    return _Job(config, base.model, entry, resolved, found, said)


@attrs.frozen(eq=False)
class _Job:
    """A selection that is ready to begin. `said`: what the user was told, for the summary."""

    config: SelectionConfig
    model: str
    entry: Registered[Selector]
    resolved: SelectionContext
    found: Checked
    said: Sequence[str]

    @property
    def digests(self) -> dict[str, str]:
        """Of each pool's data, and of the target's training rows."""
        scans = zip(self.resolved.pools, self.found.scans, strict=True)
        own = scan(self.resolved.examples, frozenset(), no_op)
        return {"the target": own.digest, **{pool.name: seen.digest for pool, seen in scans}}

    def run(self, selector: BoundSelector, directory: Path, clock: Clock) -> Selection:
        """Prepare, score, rank, draw, and write the summary last."""
        work = directory / WORK
        shards = Shards(
            work / "scores", self.resolved.pools, self.found.kept_out, self.config.shard_rows
        )
        shards.check()
        _prepare(selector, work / _PREPARED)
        clock.note()
        shards.score(selector, self.resolved.progress, clock.note)
        task, row, score = shards.read()
        if not len(row):
            raise RunError(f"the selector {self.entry.record.name!r} has left out every row")
        order = ranked(task, row, score)
        selection = Selection(
            directory=directory,
            summary={},
            names=tuple(pool.name for pool in self.resolved.pools),
            task=task[order],
            row=row[order],
            score=score[order],
        )
        write_rows(directory / ROWS, selection)
        top = min(self.found.top, len(selection))
        self._draw(selection, top, directory)
        summary = self._summary(selection, top, clock.total())
        write_json(directory / SUMMARY, summary)
        shutil.rmtree(work)
        return attrs.evolve(selection, summary=summary)

    def _draw(self, selection: Selection, top: int, directory: Path) -> None:
        most = self.config.picture_rows
        if most and not available():
            self.resolved.remark("the picture needs matplotlib: pip install 'aang[plots]'")
        if most and not write_picture(self.resolved, selection, top, most, directory):
            self.resolved.remark("there are too few rows for a picture")

    def _summary(self, selection: Selection, top: int, spent: Spent) -> dict[str, Any]:
        """``summary.json``: what was chosen for, from and how, what came of it, and what it cost."""
        config = self.config
        counts, scored = selection.counts(top), selection.counts(len(selection))
        parts = zip(self.resolved.pools, self.found.scans, self.found.samples, strict=True)
        return {
            "schema": SCHEMA,
            "target": config.target,
            "pools": {pool.name: pool.spec for pool in self.resolved.pools},
            "selector": self.entry.record.name,
            "options": dict(self.resolved.options),
            "model": self.model,
            "seed": config.seed,
            "train_rows": config.train_rows,
            "dev_rows": config.dev_rows,
            "examples_per_task": config.examples_per_task,
            "max_length": config.max_length,
            "ranked": len(selection),
            "top": top,
            "tasks": [
                {
                    "task": pool.name,
                    "labelled": pool.task is not None,
                    "rows": len(pool),
                    "trained_on": len(sample),
                    "leaks": list(seen.leaks),
                    "empty": len(seen.empty),
                    "ranked": scored[pool.name],
                    "in_top": counts[pool.name],
                    "share_of_top": counts[pool.name] / top,
                    "digest": seen.digest,
                }
                for pool, seen, sample in parts
            ],
            "remarks": list(self.said),
            "cost": {"seconds": spent.seconds, "cpu_seconds": spent.cpu_seconds},
            "versions": versions(),
            "plugin": str(self.entry.provenance),
        }


def _prepare(selector: BoundSelector, path: Path) -> None:
    """Let the selector prepare itself, or take what it had prepared before the break."""
    if not path.exists():
        save_tensors(path, selector.prepare())
        return
    try:
        state = load_tensors(path)
    except RunError as cause:
        raise RunError(f"{cause}; delete it, and it is made again") from cause
    selector.restore(state)


def _as_run(config: SelectionConfig) -> RunConfig:
    """The run whose task and encoder are the selection's."""
    return RunConfig.from_mapping(
        {
            "task": config.target,
            "model": config.model,
            "method": "finetune",
            "seeds": [config.seed],
            "train_rows": config.train_rows,
            "dev_rows": config.dev_rows,
            "drop_empty": config.drop_empty,
            "columns": config.columns,
            "unlabelled": config.unlabelled,
            "device": config.device,
            "training": {"max_length": config.max_length, "precision": config.precision},
        }
    )


def ranked(
    task: NDArray[np.int32], row: NDArray[np.int64], score: NDArray[np.float64]
) -> NDArray[np.intp]:
    """[R] the order from the best row to the worst; equal scores in the order of tasks and rows."""
    return np.lexsort((row, task, -score))


def write_rows(path: Path, selection: Selection) -> None:
    """Write ``selection.jsonl``, line by line."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        parts = zip(selection.task, selection.row, selection.score, strict=True)
        for rank, (task, row, score) in enumerate(parts, 1):
            line = {
                "task": selection.names[task],
                "row": int(row),
                "score": float(score),
                "rank": rank,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
