"""The main job. In: a configuration. Out: a run directory and a report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs

from aang_core.analysis.answer import helped
from aang_core.analysis.compare import agreements
from aang_core.analysis.page.page import write_run_page
from aang_core.batch.protocols import no_op
from aang_core.config.file import from_keywords, load_config
from aang_core.config.settings import RunConfig
from aang_core.data.audit import audit_draws, audit_task, findings
from aang_core.data.spec import MEMORY
from aang_core.data.task import Task
from aang_core.errors import ConfigError, RunError
from aang_core.processes import join_processes
from aang_core.registry.registry import Registry, registry_named
from aang_core.registry.spaces import suggestions
from aang_core.rundir.directory import JobDirectory, run_directory, seed_directory, unused_directory
from aang_core.rundir.failures import explained
from aang_core.rundir.finished import AGAINST, CONTROL, read_against, read_runs
from aang_core.rundir.recipe import check_recipe
from aang_core.rundir.report import RunReport, SeedReport, write_json
from aang_core.study.searched import Searched, again, known_search, searches_of
from aang_core.study.seed import run_seed
from aang_core.study.seeds import check_jobs, run_seeds
from aang_core.study.training import SeedJob
from aang_core.study.trials.pool import StudyCallback
from aang_core.study.trials.trial import Outcome, Trial
from aang_core.train.callbacks import Callback, Callbacks
from aang_core.train.finish.guard import AUTO_BASELINE, FEW, PLAIN, baseline_of, plain_run
from aang_core.train.finish.race import entrants
from aang_core.train.loggers import Logged, chosen_loggers
from aang_core.train.resolve import ResolvedRun, resolve, seed_task

SHUFFLED = "shuffled"
"""The control of an ordinary run: what is learned of one objective moves the weight of another."""


def run(
    config: RunConfig | None = None,
    *,
    task: str | Path | Task | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    jobs: int = 1,
    callbacks: Callback | str | Sequence[Callback | str] = (),
    watcher: Callback | None = None,
    registry: Registry | None = None,
    against: str = "",
    control: str = "",
    search: str | Path | None = None,
    **settings: Any,
) -> RunReport:
    """Train, evaluate and export; the same as ``aang run``.

    :param config: a whole configuration; or else give its keys as keywords (``task=``, ``space=``, ``seeds=``,
        ``training={"max_steps": 60}``, …).
    :param task: the name of a task as in the configuration; or a `Task` made in Python, also beside `config`. The
        directory's ``config.toml`` then calls it ``memory:NAME``, and the run cannot be resumed.
    :param out: the run directory; by default ``runs/TASK-SPACE-METHOD``, with a number appended if that is taken.
    :param resume: go on with an interrupted run in `out`, from its last checkpoint; its ``config.toml`` says
        everything else, so nothing need be given.
    :param jobs: how many seeds run at the same time, each in its own process (which loads installed plugins
        itself, so `registry` has to be what they give).
    :param callbacks: one or several that follow the run and may end a training; a text names one of a plugin,
        as in the configuration's ``callbacks``, which every process of the run loads. With `jobs` above 1 the others'
        ``on_step_end`` and ``on_evaluate`` are given a stand-in for the session that knows the seed alone, and one that
        needs more, keeps a state or ends trainings is refused. :param watcher: their former name.
    :param against: ``finetune``: also train this baseline, plain fine-tuning at equal tokens on the same seeds, into
        ``OUT-finetune``; what the two say of each other is `RunReport.against`, and lies in ``OUT/against.json``.
        ``auto``, the default of ``aang run``: where at most `guard.FEW` labelled rows train. Empty or ``none``: no
        baseline. With `resume` what is finished is kept, and ``auto`` means what the run was begun with.
    :param control: ``shuffled``: also train the permutation control (`rules.Shuffled`) on the same seeds, into
        ``OUT-shuffled``; what the two say of each other is `RunReport.control`, and lies in ``OUT/control.json``.
        Otherwise as `against`.
    :param search: a finished run that differs in ``training.refit`` alone: its searches are not repeated, and its seeds
        train once more on train and dev, as ``aang refit`` does. Nothing else need be given but `out`; it goes neither
        with several `jobs` nor with `against` or `control`.
    :raises AangError: for everything that the user can mend, before anything is written where that is possible.
    """
    if config is None and not settings:
        config = _recorded(out if resume else None, search)
    registry = registry or registry_named(config.plugins if config else settings.get("plugins", ()))
    names, given = _given(callbacks, watcher)
    chosen = _chosen(config, task, names, settings, registry)
    held = task if isinstance(task, Task) else None
    if held is not None:
        _check_held(held, resume, jobs)
    resolved = resolve(chosen, registry, held)
    check_recipe(chosen)
    entrants(resolved)  # what a race cannot run is said before it begins
    searches = _searches(search, chosen, jobs, (against, control))
    directory = Path(out) if out else _fresh(resolved)
    how: dict[str, Any] = {"task": held, "jobs": jobs, "callbacks": given, "registry": registry}
    if control:
        return _run_controlled(chosen, control, directory, resume, {**how, "against": against})
    if baseline := _baseline(resolved, against, directory, resume):
        return _run_against(resolved, chosen, baseline, directory, resume, how, against)
    return _carried_out(resolved, chosen, directory, resume, jobs, given, registry, searches)


def _carried_out(
    resolved: ResolvedRun,
    chosen: RunConfig,
    directory: Path,
    resume: bool,
    jobs: int,
    given: Sequence[Callback],
    registry: Registry,
    searches: Mapping[int, Searched],
) -> RunReport:
    """Take the directory, train every seed, and write what the run leaves; arguments as in `run`.

    :param chosen: the configuration as it was given, which the directory keeps. :param searches: those known, by seed.
    """
    processes = join_processes()
    spoken = processes.is_main  # one process speaks for all
    heard = Callbacks(given if spoken else ())
    check_jobs(jobs, chosen, heard.members, processes)
    loggers = chosen_loggers(chosen.log, registry)
    logged = Logged(loggers if spoken else (), chosen)
    everyone = Callbacks([logged, *heard.members])
    place = run_directory(directory, chosen)
    with place.taken(resume, processes), explained(chosen, directory), closing(logged):
        everyone.on_begin(directory)
        if resume and not (directory / "report.json").exists():
            _name_defaults(place, everyone)
        audit = _audited(resolved, everyone)
        if jobs > 1 and len(chosen.seeds) > 1:  # where each process logs its own seed
            seeds = run_seeds(chosen, directory, resume, heard, jobs)
        else:
            how: dict[str, Any] = {"resume": resume, "callbacks": everyone, "processes": processes}
            places = {n: seed_directory(directory, chosen.seeds, n) for n in chosen.seeds}
            seeds = [
                run_seed(resolved, SeedJob(seed=n, directory=place, search=searches.get(n), **how))
                for n, place in places.items()
            ]
        report = _report(resolved, seeds, directory, audit, registry)
        if processes.is_main:
            write_json(directory / "report.json", report.as_mapping())
            write_run_page(directory)
    return report


def _name_defaults(place: JobDirectory, callback: Callback) -> None:
    """Tell the user of settings that the version which began the run did not know."""
    if new := place.defaulted():
        callback.on_remark(
            f"{place.path / place.mark} is of another version of aang and does not name {', '.join(new)}; the run goes "
            "on with these defaults. If it began with other values (see the changelog), stop it, write them there, and "
            "resume again"
        )


def _recorded(out: str | Path | None, search: str | Path | None) -> RunConfig | None:
    """The configuration that a directory records: of the run to be resumed in `out`, or of the `search`."""
    if search:
        return again(Path(search))
    return load_config(Path(out) / "config.toml") if out else None


def _searches(
    search: str | Path | None, config: RunConfig, jobs: int, others: Sequence[str]
) -> Mapping[int, Searched]:
    """:raises ConfigError: where what is given does not go with `search`.

    :param others: ``against`` and ``control``.
    """
    named = [name for name in others if name not in ("", "none")]
    if search and (jobs > 1 or named):
        raise ConfigError(
            f"search = {str(search)!r} goes with jobs = 1 and without against or control (got jobs = {jobs} and "
            f"{', '.join(named) or 'neither'}); refit the other run by itself"
        )
    return searches_of(Path(search), config) if search else {}


def _chosen(
    config: RunConfig | None,
    task: str | Path | Task | None,
    callbacks: Sequence[str],
    settings: Mapping[str, Any],
    registry: Registry,
) -> RunConfig:
    """The configuration that is given or that keywords make, with a task in memory and named callbacks in it."""
    named = {"task": task} if isinstance(task, str | Path) else {}
    chosen = config or RunConfig.from_mapping(
        from_keywords({**settings, **named}), suggest=suggestions(registry)
    )
    if isinstance(task, Task):
        chosen = attrs.evolve(chosen, task=MEMORY + task.name)
    return attrs.evolve(chosen, callbacks=(*chosen.callbacks, *callbacks))


def _check_held(task: Task, resume: bool, jobs: int) -> None:
    """:raises ConfigError: where a run with a task in memory would need it in another process, now or later."""
    if resume:
        raise ConfigError(
            f"a run of the task {task.name!r}, given as an object, cannot be resumed: nothing shows that it holds the "
            "same rows as before; begin another run with another out, or write the task into a folder"
        )
    if jobs > 1:
        raise ConfigError(
            f"jobs = {jobs} trains seeds in processes of their own, which cannot see the task {task.name!r} that is "
            "given as an object; train with jobs = 1, or write the task into a folder"
        )


def beside(directory: Path, baseline: str = PLAIN) -> Path:
    """Where the baseline of a run lies."""
    return directory.with_name(f"{directory.name}-{baseline}")


def _run_against(
    resolved: ResolvedRun,
    config: RunConfig,
    baseline: str,
    directory: Path,
    resume: bool,
    how: Mapping[str, Any],
    against: str,
) -> RunReport:
    """Both runs, one after the other. The second is checked before the first is trained."""
    if against == AUTO_BASELINE and not resume:
        Callbacks(how["callbacks"]).on_remark(
            f"at most {FEW} labelled rows train: plain fine-tuning runs too, so that the end can say whether the "
            "objectives help (--against none: without)"
        )
    plain = plain_run(resolved).config
    place = beside(directory, baseline)
    goes_on = _goes_on(place, plain, resume, "the baseline", "--against none")
    known = {"directory": place.name, "baseline": baseline}
    noted = _Noted(known)
    report = run(
        config, out=directory, resume=resume, **{**how, "callbacks": [noted, *how["callbacks"]]}
    )
    Callbacks(how["callbacks"]).on_remark(
        f"baseline: plain fine-tuning at equal tokens, in {place}"
    )
    run(plain, out=place, resume=goes_on, **how)
    second, first = read_runs([directory, place])
    found = helped(first, second)
    write_json(directory / AGAINST, {**known, **found})
    write_run_page(directory)
    return attrs.evolve(report, against={**found, "directory": str(place)})


def _goes_on(place: Path, config: RunConfig, resume: bool, what: str, without: str) -> bool:
    """Whether a run beside the main one has begun there and goes on.

    :raises RunError: where something else lies in its place; names the flag `without` it.
    """
    taken = run_directory(place, config)
    goes_on = resume and taken.is_begun
    try:
        taken.check(goes_on)
    except RunError as cause:
        raise RunError(f"{what} needs {place}: {cause}; or leave it out ({without})") from cause
    return goes_on


def shuffled_control(config: RunConfig, control: str = SHUFFLED) -> RunConfig:
    """The permutation control of a run.

    :raises ConfigError: where `control` is another one, or the run is the control itself.
    """
    if control != SHUFFLED or config.meta.control == SHUFFLED:
        raise ConfigError(
            f"control must be {SHUFFLED!r}, for a run whose own meta.control is 'none' (got {control!r} and "
            f"{config.meta.control!r})"
        )
    return attrs.evolve(config, meta=attrs.evolve(config.meta, control=SHUFFLED))


def _run_controlled(
    config: RunConfig, control: str, directory: Path, resume: bool, how: Mapping[str, Any]
) -> RunReport:
    """The run (and its baseline), then the same with shuffled weights, which is checked before the first is trained.

    :param how: as in `run`, ``against`` too.
    """
    shuffled = shuffled_control(config, control)
    if join_processes().size > 1:
        raise ConfigError("a run that several processes share trains no control beside it")
    alone = {**how, "against": ""}
    resolve(shuffled, how["registry"], how["task"])  # refuses methods that learn no weights
    place = beside(directory, SHUFFLED)
    goes_on = _goes_on(place, shuffled, resume, "the control", "no --control")
    report = run(config, out=directory, resume=resume, **how)
    Callbacks(how["callbacks"]).on_remark(f"control: the same with shuffled weights, in {place}")
    run(shuffled, out=place, resume=goes_on, **alone)
    ours, theirs = read_runs([directory, place])
    found = helped(theirs, ours)
    agreement = agreements([ours, theirs])
    known = {"directory": place.name, "control": control, **found, "agreement": agreement}
    write_json(directory / CONTROL, known)
    write_run_page(directory)
    said = [found["said"], *filter(None, [agreement])]
    found = {**found, "said": "; ".join(said), "directory": str(place)}
    return attrs.evolve(report, control=found)


def _baseline(resolved: ResolvedRun, against: str, directory: Path, resume: bool) -> str:
    """The method of the baseline, as `baseline_of`; a run that goes on knows from its beginning what ``auto`` means.

    :raises ConfigError: where a baseline is asked for and several processes share the run.
    """
    shared = join_processes().size > 1
    if against == AUTO_BASELINE and (shared or resume):
        return "" if shared else str(read_against(directory).get("baseline", ""))
    baseline = baseline_of(resolved, against)
    if baseline and shared:
        raise ConfigError(
            "a run that several processes share trains no baseline beside it (against): carry out a second run with "
            f"method {baseline!r} and training.row_budget = 'end-task', and compare the two (`aang compare`)"
        )
    return baseline


class _Noted(Callback):
    """Writes at the beginning which baseline a run will have, so that it is known if the run breaks off."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = known

    def on_begin(self, directory: Path) -> None:
        if not read_against(directory):
            write_json(directory / AGAINST, self.known)


def _given(
    callbacks: Callback | str | Sequence[Callback | str], watcher: Callback | None
) -> tuple[list[str], list[Callback]]:
    """The names of plugins' callbacks, and the others, also under the keyword's former name."""
    several = [callbacks] if isinstance(callbacks, Callback | str) else [*callbacks]
    if watcher is not None:
        warnings.warn(
            "watcher= is now callbacks=; it goes with 0.2", DeprecationWarning, stacklevel=3
        )
        several.append(watcher)
    names = [each for each in several if isinstance(each, str)]
    return names, [each for each in several if not isinstance(each, str)]


def _fresh(resolved: ResolvedRun) -> Path:
    """``runs/TASK-SPACE-METHOD``, with a number appended if that is taken."""
    space = resolved.space.name if resolved.space else ""
    return unused_directory("runs", (resolved.task.name, space, resolved.config.method))


def run_or_resume(config: RunConfig, out: Path, **how: Any) -> RunReport:
    """Start a run in `out`, or resume the one that is there; `how` as in `run`."""
    return run(config, out=out, resume=(out / "config.toml").is_file(), **how)


def run_trial(trial: Trial, **how: Any) -> RunReport:
    """Start or resume a trial that is a whole run; what it shares with a finished one is not trained again."""
    return run_or_resume(trial.config, trial.directory, search=known_search(trial.search), **how)


def run_trials(
    trials: Sequence[Trial],
    registry: Registry,
    callback: Callback | None = None,
    *,
    jobs: int = 1,
    before: Callable[[Trial], None] = no_op,
    after: Callable[[Trial], None] = no_op,
) -> None:
    """Carry out whole runs one after another in this process. Finished ones are kept, interrupted ones resume.

    :param callback: follows each run; a `StudyCallback` follows the trials as well.
    :param before, after: called with each trial that is carried out, before it begins and when it is finished.
    """
    study = callback if isinstance(callback, StudyCallback) else StudyCallback()
    study.on_plan(trials, [trial for trial in trials if trial.is_finished])
    for trial in trials:
        if not trial.is_finished:
            study.on_start(trial, 1)
            before(trial)
            run_trial(trial, jobs=jobs, callbacks=callback or (), registry=registry)
            after(trial)
            study.on_end(Outcome(trial=trial))


def _report(
    resolved: ResolvedRun,
    seeds: Sequence[SeedReport],
    directory: Path,
    audit: Mapping[str, Any],
    registry: Registry,
) -> RunReport:
    origins = [plugin.provenance for plugin in registry.plugins]
    return RunReport(
        task=resolved.task.name,
        space=resolved.space.name if resolved.space else "",
        method=resolved.config.method,
        model=resolved.model,
        metric=resolved.task.metric,
        reads=tuple(
            n for n in resolved.kind.reads if n in resolved.task.splits["train"].column_names
        ),
        seeds=tuple(seeds),
        remarks=tuple(resolved.task.remarks),
        directory=directory,
        audit=audit,
        plugins={o.plugin: f"{o.distribution} {o.version}" for o in origins},
    )


def _audited(resolved: ResolvedRun, callback: Callback) -> dict[str, Any]:
    """What the audit finds in the splits that the seeds train on, after telling the user of it and of the remarks."""
    if resolved.config.split_anew:
        # rows that --train-rows leaves out stay: their texts are trained on, without their labels
        whole = attrs.evolve(
            resolved,
            config=attrs.evolve(resolved.config, train_rows=0, dev_rows=0, unlabelled_rows=0),
        )
        audit = audit_draws([seed_task(whole, seed) for seed in sorted(resolved.config.seeds)])
    else:
        audit = audit_task(resolved.task, thorough=False)
    for remark in resolved.task.remarks:
        callback.on_remark(remark)
    if found := findings(audit):
        callback.on_remark(f"data: {'; '.join(found)} (see `aang audit`)")
    return audit
