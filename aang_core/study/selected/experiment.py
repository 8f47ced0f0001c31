"""Does selected data help? In: an `ExperimentSpec`. Out: a directory of selections, runs, and their results.

::

    data/TARGET/seed-S/target, …/pools/NAME    the rows drawn for the seed, as tasks; pool rows whose text stands in the
                                               target's dev or test are left out
    selections/TARGET/seed-S/SELECTOR          what each selector ranks
    runs/TARGET/ARM/seed-S                     one run directory a target, arm and seed
    results.json, results.md, *.svg, *.png     see `results`

All arms of a seed run before the next seed, so an early stop leaves complete pairs. Finished parts are kept;
interrupted ones resume.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import tomli_w

from aang_core.batch.protocols import no_op
from aang_core.config.settings import RunConfig, laid_over
from aang_core.data.auxiliary import load_auxiliary, read_selection, short_name
from aang_core.data.spec import LABEL
from aang_core.data.splits import draw_labels
from aang_core.data.task import Task, load_task, registered_tasks
from aang_core.errors import ConfigError, one_message
from aang_core.registry.registry import Registry
from aang_core.registry.spaces import selection_defaults
from aang_core.rundir.directory import JobDirectory, seed_folder
from aang_core.selection.pools import Pool, checked, judged_texts, load_pools, scan
from aang_core.selection.settings import SelectionConfig
from aang_core.study.results import CLOCKS, Finished, finished, write_experiment_results
from aang_core.study.run import run_trials
from aang_core.study.selected.experiment_spec import ExperimentSpec, dump_spec, read_spec
from aang_core.study.selected.selections import Arm, arm_settings, made_selection
from aang_core.study.trials.trial import Trial
from aang_core.train.callbacks import Callback
from aang_core.train.finish.export import gold

_SPEC = "experiment.toml"
_POOL_DEV = 20  # a further task's own dev is never read, but a folder without one would be split
_CHUNK = 2048


@attrs.frozen(eq=False, kw_only=True)
class Cell:
    """What all arms of one target and seed share.

    :param name: the target's short name. :param target: its folder. :param pools: the folders of the further tasks.
    :param selections: the folder of its selections.
    """

    seed: int
    name: str
    target: str
    pools: tuple[str, ...]
    selections: Path


@attrs.frozen(eq=False, kw_only=True)
class Study:
    """An experiment with its tasks.

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
    callback: Callback | None = None,
) -> dict[str, Any]:
    """Carry out what a file specifies.

    :param out: the experiment's directory. :param resume: continue the one that is there.
    :param callback: follows each run; a `StudyCallback` follows all of them.
    :returns: the contents of ``results.json``.
    :raises AangError: for everything that the user can mend, as far as possible before the first training.
    """
    told = callback or Callback()
    asked = _resolved(read_spec(path), out, registry)
    place = JobDirectory(
        path=out,
        what="experiment",
        mark=_SPEC,
        text=dump_spec(asked.spec),
        read=lambda mark: dump_spec(read_spec(mark)),
    )
    with place.taken(resume):
        seeds, targets = asked.spec.seeds, asked.targets
        cells = [_drawn(asked, target, seed) for seed in seeds for target in targets]
        for cell in cells:
            _check(asked, cell)
        parts = [(cell, arm, _trial(asked, cell, arm)) for cell in cells for arm in asked.spec.arms]
        arms = {trial.directory: (cell, arm) for cell, arm, trial in parts}
        for _, _, trial in parts:  # if the experiment was killed before it pruned them
            if trial.is_finished:
                _prune(trial, asked.spec)
        try:
            run_trials(
                [trial for _, _, trial in parts],
                registry,
                callback,
                before=lambda trial: _select(asked, *arms[trial.directory], told),
                after=lambda trial: _prune(trial, asked.spec),
            )
        finally:  # an interrupted experiment, too, writes its results so far
            results = _results(asked, parts)
    return results


def _results(study: Study, parts: Sequence[tuple[Cell, Arm, Trial]]) -> dict[str, Any]:
    """Write scores and costs of the finished runs and their selections."""
    outcomes: dict[str, dict[Arm, list[Finished]]] = {
        name: {arm: [] for arm in study.spec.arms} for name in study.targets
    }
    for cell, arm, trial in parts:
        if not trial.is_finished:
            continue
        run = finished(trial)
        if arm.selector:
            selection = read_selection(cell.selections / arm.source)
            cost = {clock: selection.summary["cost"][clock] for clock in CLOCKS}
            counts = {task: len(rows) for task, rows in selection.top(arm.top).items()}
            run = attrs.evolve(run, selecting=cost, counts=counts)
        outcomes[cell.name][arm].append(run)
    return write_experiment_results(study.spec, outcomes, study.out)


def _resolved(spec: ExperimentSpec, out: Path, registry: Registry) -> Study:
    """Read every task, and check that every selector is known.

    :raises AangError: as `task.load_task` does, or for unknown selectors, or targets of the same name.
    """
    faults = [
        registry.unknown("selector", name, registry.selectors)
        for name in spec.selectors
        if name not in registry.selectors
    ]
    if faults:
        raise ConfigError(one_message(faults, "selectors"))
    model = str(spec.run.get("model", "")) or registry.usual_model()
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
    """Draw the rows of one target and seed into folders."""
    task, further = study.targets[target]
    sizes = study.spec.rows
    place = study.out / "data" / target / seed_folder(seed)
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
        selections=study.out / "selections" / target / seed_folder(seed),
    )


def _selection_config(study: Study, cell: Cell) -> SelectionConfig:
    given = {key: value for key, value in study.spec.select.items() if key != "options"}
    model = {"model": study.spec.run["model"]} if "model" in study.spec.run else {}
    own = {"target": cell.target, "from": list(cell.pools), "seed": cell.seed}
    return SelectionConfig.from_mapping({**model, **given, **own})


def _check(study: Study, cell: Cell) -> None:
    """Check from the data alone that every N is possible.

    :raises TaskError: as `pools.checked` does.
    """
    config = attrs.evolve(_selection_config(study, cell), top=max(study.spec.top))
    target = _task(cell.target, study.reads, study.registry)
    checked(config, target, target, load_pools(cell.pools, study.reads, study.registry), no_op)


def _trial(study: Study, cell: Cell, arm: Arm) -> Trial:
    """One arm's run."""
    selection = str(cell.selections / arm.source) if arm.selector else ""
    settings = laid_over(selection_defaults(study.registry), study.spec.run)
    settings |= {"task": cell.target, "seeds": (cell.seed,)}
    settings |= arm_settings(arm, selection, cell.pools)
    return Trial(
        configuration=f"{cell.name}, {arm.name}",
        seed=cell.seed,
        config=RunConfig.from_mapping(settings),
        directory=study.out / "runs" / cell.name / arm.name / seed_folder(cell.seed),
    )


def _select(study: Study, cell: Cell, arm: Arm, callback: Callback) -> None:
    """Make the selection that an arm trains on, unless it is finished."""
    if arm.selector:
        made_selection(
            arm,
            _selection_config(study, cell),
            study.spec.select.get("options", {}).get(arm.selector, {}),
            cell.selections / arm.source,
            cell.selections / arm.like,
            study.registry,
            callback.on_preparation,
        )


def _prune(trial: Trial, spec: ExperimentSpec) -> None:
    """Remove the models of a finished run, unless the experiment keeps them."""
    for name in () if spec.keep_models else ("model", "checkpoint"):
        if (trial.directory / name).is_dir():
            shutil.rmtree(trial.directory / name)


def drawn_rows(
    task: Task, split: str, count: int, seed: int, excluded: frozenset[int] = frozenset()
) -> list[int]:
    """At most `count` row numbers of a split, ascending, by class as `draw_labels` draws them.

    :param count: 0 for all. :param excluded: rows that are never drawn.
    """
    data = task.splits[split]
    usable = [row for row in range(len(data)) if row not in excluded]
    if count == 0 or count >= len(usable):
        return usable
    generator = np.random.default_rng([seed, len(usable), count])
    if LABEL not in data.column_names:
        return sorted(generator.permutation(usable)[:count].tolist())
    labels = data[LABEL][:]
    picked = draw_labels(task.kind, [labels[row] for row in usable], count, generator)
    return [usable[i] for i in picked]


def write_task(task: Task, rows: Mapping[str, Sequence[int]], folder: Path) -> None:
    """Write these rows of each split, completely or not at all. An existing folder is kept.

    Texts without labels are rows of train without a label.
    """
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    for split, numbers in rows.items():
        with (partial / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for start in range(0, len(numbers), _CHUNK):
                for example in task.splits[split].select(list(numbers[start : start + _CHUNK])):
                    if LABEL in example:
                        example = {**example, LABEL: gold(task, example[LABEL])}
                    file.write(json.dumps(example, ensure_ascii=False) + "\n")
    settings = {"name": task.name, "metric": task.metric, "kind": task.kind}
    if task.unlabelled is not None and "train" in rows:
        with (partial / "train.jsonl").open("a", encoding="utf-8") as file:
            for example in task.unlabelled:
                file.write(json.dumps({**example, LABEL: None}, ensure_ascii=False) + "\n")
        settings["unlabelled"] = "empty"
    (partial / "task.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    partial.replace(folder)
