"""Searches that a finished run has done, for a run that differs in ``training.refit`` alone: it does not repeat them.

``aang refit`` trains a finished run's seeds once more on train and dev, and a sweep with both forms of a configuration
trains what they share once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from aang_core.config.settings import RunConfig
from aang_core.errors import RunError
from aang_core.rundir.finished import FinishedRun, read_run
from aang_core.rundir.report import SeedReport, seed_report
from aang_core.study.trials.trial import differing_settings
from aang_core.train.finish.refit import Found, with_numbers
from aang_core.train.resolve import ResolvedRun


@attrs.frozen(kw_only=True)
class Searched:
    """The search of one seed. :param history: its ``history.jsonl``."""

    report: SeedReport
    history: Path

    def found(self, resolved: ResolvedRun) -> Found:
        """What the training after it needs. :param resolved: the run with the same settings."""
        return Found(
            resolved=resolved,
            config=resolved.config,
            evaluations=with_numbers(self.report.evaluations),
            weights=self.report.weights,
        )


def with_refit(config: RunConfig, refit: str) -> RunConfig:
    """The same with (``all``) or without (``none``) a training after the search."""
    return attrs.evolve(config, training=attrs.evolve(config.training, refit=refit))


def unsaid(run: FinishedRun) -> str:
    """Why a finished run's reports do not say all that a training after it needs; empty where they do."""
    if run.config.training.refit != "none":
        return "was trained once more already (training.refit = 'all'): nothing is to be done"
    several = [seed for seed in run.report["seeds"] if seed.get("guard") or seed.get("race")]
    if several or run.config.training.mean_evaluation != "off":
        return (
            "chose among several models (guard, a race, or training.mean_evaluation), of which its report does not say "
            "all that a second training needs; train anew with --set training.refit=all"
        )
    return ""


def known_search(directory: Path | None) -> Path | None:
    """A run's directory, if it is finished and its searches can be taken; else None."""
    if directory is None or not (directory / "report.json").is_file():
        return None
    return None if unsaid(read_run(directory)) else directory


def again(directory: Path) -> RunConfig:
    """The configuration that trains a finished run's seeds once more.

    :raises RunError: where there is no finished run, or it cannot be trained once more, and why.
    """
    return _once_more(read_run(directory))


def _once_more(run: FinishedRun) -> RunConfig:
    if said := unsaid(run):
        raise RunError(f"{run.path} {said} (expected a finished run that trained once)")
    return with_refit(run.config, "all")


def searches_of(directory: Path, config: RunConfig) -> Mapping[int, Searched]:
    """The searches of a finished run by seed, for a run with this configuration.

    :raises RunError: where there is no finished run, or it has other settings or lacks a seed; names all that differs.
    """
    run = read_run(directory)
    differing = _differing(config, _once_more(run))
    if missing := [str(seed) for seed in config.seeds if seed not in run.folders]:
        differing.append(f"it has no seed {', '.join(missing)}")
    histories = {seed: run.folders[seed] / "history.jsonl" for seed in run.folders}
    differing += [f"{path} is missing" for path in histories.values() if not path.is_file()]
    if differing:
        raise RunError(
            f"the searches of {directory} do not fit: expected a run that differs in training.refit alone, but "
            f"{'; '.join(differing)}. Give the run's own settings, or train anew without its searches"
        )
    return {
        report.seed: Searched(report=report, history=histories[report.seed])
        for report in map(seed_report, run.report["seeds"])
    }


def _differing(here: RunConfig, there: RunConfig) -> list[str]:
    tables = differing_settings({"here": here, "there": there})
    ours, theirs = tables["here"], tables["there"]
    return [f"{key} is {ours[key]!r} here and {theirs[key]!r} there" for key in ours]
