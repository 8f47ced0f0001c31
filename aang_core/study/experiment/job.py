"""Does selected data help? In: an `ExperimentSpec`. Out: a directory of selections, runs, and their results.

::

    data/TARGET/seed-S/target, …/pools/NAME    the rows drawn for the seed, as tasks; pool rows whose text stands in the
                                               target's dev or test are left out
    selections/TARGET/seed-S/SELECTOR          what each selector ranks
    runs/TARGET/ARM/seed-S                     one run directory a target, arm and seed
    results.json, results.md, *.svg, *.png     see `results`

Seeds come outermost, so that an early stop leaves whole pairs. What is finished is kept; what was broken off goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.batch.protocols import no_op
from aang_core.config.settings import RunConfig
from aang_core.data.auxiliary import load_auxiliary, short_name
from aang_core.data.task import Task, load_task, registered_tasks
from aang_core.errors import ConfigError, one_message
from aang_core.registry.registry import Registry
from aang_core.rundir.directory import JobDirectory
from aang_core.selection.checks import checked
from aang_core.selection.pools import Pool, judged_texts, load_pools, scan
from aang_core.selection.settings import SelectionConfig
from aang_core.study.arms import Arm, arm_settings, made_selection
from aang_core.study.experiment.results import run_directory, write_results
from aang_core.study.experiment.spec import ExperimentSpec, dump_spec, read_spec, run_settings
from aang_core.study.experiment.subsets import drawn_rows, write_task
from aang_core.study.run import run_or_resume
from aang_core.train.callbacks import Watcher
from aang_core.train.resolve import usual_model

_SPEC = "experiment.toml"
_POOL_DEV = 20  # a further task's own dev is never read, but a folder without one would be split


class Overseer(Watcher):
    """What an experiment tells while it goes on, beside what each of its runs tells."""

    def on_part(self, number: int, total: int, what: str) -> None:
        """Before each run, with its number from 1."""


@attrs.frozen(eq=False, kw_only=True)
class Cell:
    """One target and seed: what all of its arms share.

    :param target: the target's folder, as its runs are given it. :param pools: those of the further tasks.
    :param name: the target's short name. :param selections: where its selections lie.
    """

    seed: int
    name: str
    target: str
    pools: tuple[str, ...]
    selections: Path


@attrs.frozen(eq=False, kw_only=True)
class Study:
    """An experiment with the tasks that it is about.

    :param reads: the input columns that the encoder reads.
    :param targets: the short name of each target → the task, and its further tasks by short name.
    """

    spec: ExperimentSpec
    out: Path
    registry: Registry
    reads: tuple[str, ...]
    targets: dict[str, tuple[Task, dict[str, Task]]]


def run_experiment(
    path: Path,
    out: Path,
    registry: Registry,
    resume: bool = False,
    overseer: Overseer | None = None,
) -> dict[str, Any]:
    """Carry out what a file specifies.

    :param out: the experiment's directory. :param resume: go on with the one that is there.
    :returns: the contents of ``results.json``.
    :raises AangError: for everything that the user can mend, as far as possible before the first training.
    """
    watcher = overseer or Overseer()
    study = _settled(read_spec(path), out, registry)
    place = JobDirectory(
        path=out,
        what="experiment",
        mark=_SPEC,
        text=dump_spec(study.spec),
        read=lambda mark: dump_spec(read_spec(mark)),
    )
    with place.taken(resume):
        cells = _prepared(study)
        parts = [(cell, arm) for cell in cells for arm in study.spec.arms]
        try:
            for number, (cell, arm) in enumerate(parts, 1):
                watcher.on_part(number, len(parts), f"{cell.name}, {arm.name}, seed {cell.seed}")
                _carry_out(study, cell, arm, watcher)
        finally:  # also of an experiment that is interrupted: what it has so far
            results = write_results(study.spec, list(study.targets), out)
    return results


def _prepared(study: Study) -> list[Cell]:
    """Every target and seed, with its rows drawn and checked.

    :raises AangError: as `_drawn` and `_check` do.
    """
    cells = [_drawn(study, target, seed) for seed in study.spec.seeds for target in study.targets]
    for cell in cells:
        _check(study, cell)
    return cells


def _settled(spec: ExperimentSpec, out: Path, registry: Registry) -> Study:
    """Every task read, and every selector known.

    :raises AangError: as `task.load_task` does, or for unknown selectors, or targets of the same name.
    """
    faults = [
        registry.unknown("selector", name, registry.selectors)
        for name in spec.selectors
        if name not in registry.selectors
    ]
    if faults:
        raise ConfigError(one_message(faults, "selectors"))
    model = str(spec.run.get("model", "")) or usual_model("", registry)
    reads = registry.backbone_for(model).reads
    targets: dict[str, tuple[Task, dict[str, Task]]] = {}
    for given in spec.targets:
        task = _task(given, reads, registry)
        name = short_name(task)
        if name in targets:
            raise ConfigError(
                f"two targets have the name {name!r}, the second one is {given!r}; give one of them another, with a "
                'line name = "…" in its task.toml'
            )
        targets[name] = (task, load_auxiliary(spec.pools_of(given), reads, registry))
    return Study(spec=spec, out=out, registry=registry, reads=reads, targets=targets)


def _task(name: str, reads: Sequence[str], registry: Registry) -> Task:
    return load_task(name, reads=reads, registered=registered_tasks(registry), external={})


def _drawn(study: Study, target: str, seed: int) -> Cell:
    """The rows of one target and seed, as folders."""
    task, further = study.targets[target]
    sizes = study.spec.rows
    place = study.out / "data" / target / f"seed-{seed}"
    wanted = {"train": sizes.train, "dev": sizes.dev, "test": sizes.test}
    rows = {split: drawn_rows(task, split, wanted[split], seed) for split in task.splits}
    write_task(task, rows, place / "target")
    judged = judged_texts(task)
    pools = []
    for number, (name, other) in enumerate(further.items()):
        folder = place / "pools" / name
        if not folder.exists():
            pool = Pool(name=name, spec=name, number=number, data=other.splits["train"], task=other)
            left_out = scan(pool, judged, no_op).excluded
            train = drawn_rows(other, "train", sizes.pool, seed, left_out)
            dev = list(range(min(_POOL_DEV, len(other.splits["dev"]))))
            write_task(other, {"train": train, "dev": dev}, folder)
        pools.append(str(folder))
    return Cell(
        seed=seed,
        name=target,
        target=str(place / "target"),
        pools=tuple(pools),
        selections=study.out / "selections" / target / f"seed-{seed}",
    )


def _selection_config(study: Study, cell: Cell) -> SelectionConfig:
    given = {key: value for key, value in study.spec.select.items() if key != "options"}
    model = {"model": study.spec.run["model"]} if "model" in study.spec.run else {}
    own = {"target": cell.target, "from": list(cell.pools), "seed": cell.seed}
    return SelectionConfig.from_mapping({**model, **given, **own})


def _check(study: Study, cell: Cell) -> None:
    """Whether every N can be had, from the data alone.

    :raises TaskError: as `checks.checked` does.
    """
    config = attrs.evolve(_selection_config(study, cell), top=max(study.spec.top))
    target = _task(cell.target, study.reads, study.registry)
    checked(config, target, load_pools(cell.pools, study.reads, study.registry), no_op)


def _carry_out(study: Study, cell: Cell, arm: Arm, watcher: Watcher) -> None:
    """One arm's selection and run, as far as they are not finished."""
    directory = run_directory(study.out, cell.name, arm, cell.seed)
    if (directory / "report.json").is_file():
        _prune(directory, study.spec)
        return
    selection = cell.selections / arm.source
    if arm.selector:
        by_selector: dict[str, Any] = study.spec.select.get("options", {})
        made_selection(
            arm,
            _selection_config(study, cell),
            by_selector.get(arm.selector, {}),
            selection,
            cell.selections / arm.like,
            study.registry,
            watcher.on_preparation,
        )
    own = {"task": cell.target, "seeds": (cell.seed,)}
    settings = run_settings(
        study.spec.run, {**own, **arm_settings(arm, str(selection), cell.pools)}
    )
    config = RunConfig.from_mapping(settings)
    run_or_resume(config, directory, watcher=watcher, registry=study.registry)
    _prune(directory, study.spec)


def _prune(directory: Path, spec: ExperimentSpec) -> None:
    """Remove what a finished run no longer needs, unless it is to be kept."""
    for name in () if spec.keep_models else ("model", "checkpoint"):
        if (directory / name).is_dir():
            shutil.rmtree(directory / name)
