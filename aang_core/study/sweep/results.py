"""What a sweep found. In: its plan and the reports of finished trials. Out: rows, ``results.json``, ``results.md``.

Configurations are chosen by the mean dev score over their seeds, among those whose seeds are all finished, and for each
task alone. Test scores are shown of the chosen ones only: who looks at all of them chooses by test in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs

from aang_core.errors import RunError
from aang_core.files import write_text
from aang_core.markdown import markdown_table, mean_and_std, one_line
from aang_core.rundir.report import read_report, spread, write_json
from aang_core.study.sweep.plan import Plan, differing_settings
from aang_core.study.sweep.trial import Trial

SCHEMA = 1


def results(plan: Plan, errors: Mapping[str, str], threads: int | None) -> dict[str, Any]:
    """The document of ``results.json``.

    :param errors: the name of a trial → why it failed for the last time.
    :param threads: of each trial; where two sweeps differ in them, so may the last bits of their scores.
    """
    differing = differing_settings(plan.configurations)
    done = {trial.name: _finished(trial) for trial in plan.trials if trial.is_finished}
    rows = [_row(plan, name, differing[name], done) for name in plan.configurations]
    chosen = _chosen(rows)
    for row in rows:
        row["chosen"] = chosen.get(row["task"]) == row["configuration"]
        row["test"] = _test(plan, row["configuration"], done) if row["chosen"] else None
    return {
        "schema": SCHEMA,
        "title": plan.title,
        "chosen": chosen,
        "configurations": rows,
        "trials": [_trial_row(plan, trial, trial.name in done, errors) for trial in plan.trials],
        "threads": threads,
    }


def write_results(directory: Path, found: Mapping[str, Any]) -> None:
    """``results.json`` and ``results.md``.

    :raises RunError: where the directory cannot be written to.
    """
    try:
        write_json(directory / "results.json", found)
        write_text(directory / "results.md", as_markdown(found))
    except OSError as cause:
        raise RunError(f"cannot write the results of {directory}: {cause.strerror}") from cause


@attrs.frozen
class _Finished:
    """What counts of a finished trial.

    :param dev, test: scores by the task's metric; test is None where it has no labels.
    """

    metric: str
    dev: float
    test: float | None
    tokens: float
    seconds: float


def _finished(trial: Trial) -> _Finished:
    """:raises RunError: where the report is damaged."""
    report = read_report(trial.directory)
    metric = report["metric"]
    try:
        (seed,) = report["seeds"]
        return _Finished(
            metric=metric,
            dev=seed["dev"][metric],
            test=seed["test"][metric] if seed["test"] else None,
            tokens=seed["cost"]["tokens"],
            seconds=seed["seconds"],
        )
    except (KeyError, ValueError) as cause:
        raise RunError(
            f"{trial.directory / 'report.json'} is damaged ({cause}); delete {trial.directory} and sweep again"
        ) from cause


def _row(
    plan: Plan, name: str, settings: Mapping[str, Any], done: Mapping[str, _Finished]
) -> dict[str, Any]:
    trials = [trial for trial in plan.trials if trial.configuration == name]
    own = {str(t.seed): done[t.name] for t in trials if t.name in done}
    values = {seed: trial.dev for seed, trial in own.items()}
    return {
        "configuration": name,
        "task": plan.configurations[name].task,
        "settings": dict(settings),
        "metric": next((trial.metric for trial in own.values()), None),
        "seeds": len(trials),
        "finished": len(own),
        "dev": spread(list(values.values())) if own else None,
        "values": values,
        "test": None,
        "chosen": False,
        "tokens": fmean(trial.tokens for trial in own.values()) if own else None,
        "seconds": fmean(trial.seconds for trial in own.values()) if own else None,
        "directory": str(plan.places[name].relative_to(plan.directory)),
    }


def _trial_row(
    plan: Plan, trial: Trial, finished: bool, errors: Mapping[str, str]
) -> dict[str, Any]:
    otherwise = "failed" if trial.name in errors else "waiting"
    return {
        "configuration": trial.configuration,
        "seed": trial.seed,
        "state": "finished" if finished else otherwise,
        "error": errors.get(trial.name, ""),
        "directory": str(trial.directory.relative_to(plan.directory)),
        "log": str(trial.log.relative_to(plan.directory)),
    }


def _chosen(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Task → the configuration with the best mean on dev; the first of equals. Every metric is better when larger."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["finished"] < row["seeds"]:
            continue
        leader = best.get(row["task"])
        if leader is None or row["dev"]["mean"] > leader["dev"]["mean"]:
            best[row["task"]] = row
    return {task: row["configuration"] for task, row in best.items()}


def _test(plan: Plan, name: str, done: Mapping[str, _Finished]) -> dict[str, float | None] | None:
    """Mean and deviation on test of a configuration whose seeds are all finished; None where test has no labels."""
    scores = [done[trial.name].test for trial in plan.trials if trial.configuration == name]
    known = [score for score in scores if score is not None]
    return spread(known) if len(known) == len(scores) else None


def ranked(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The configurations task by task, the best on dev first, those without a score last."""
    tasks = list(dict.fromkeys(row["task"] for row in found["configurations"]))
    return sorted(
        found["configurations"],
        key=lambda row: (
            tasks.index(row["task"]),
            -row["dev"]["mean"] if row["dev"] else float("inf"),
        ),
    )


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as people read it."""
    return {
        "task": row["task"],
        "configuration": row["configuration"],
        "dev": mean_and_std(row["dev"]),
        "metric": row["metric"] or "",
        "seeds": f"{row['finished']}/{row['seeds']}",
        "chosen": "yes" if row["chosen"] else "",
        "test": mean_and_std(row["test"]),
        "tokens": "" if row["tokens"] is None else f"{row['tokens']:,.0f}",
        "seconds": "" if row["seconds"] is None else f"{row['seconds']:,.0f}",
        "directory": row["directory"],
    }


def as_markdown(found: Mapping[str, Any]) -> str:
    """The results as a page."""
    table = markdown_table([cells(row) for row in ranked(found)])
    parts = [f"# {one_line(found['title'])}", table, _reading(found)]
    failed = [
        one_line(f"- {trial['configuration']}, seed {trial['seed']}: {trial['error']}")
        for trial in found["trials"]
        if trial["state"] == "failed"
    ]
    if failed:
        parts += ["## Failed", "\n".join(failed)]
    return "\n\n".join(parts) + "\n"


def _reading(found: Mapping[str, Any]) -> str:
    states = [trial["state"] for trial in found["trials"]]
    return (
        f"{states.count('finished')} of {len(states)} trials are finished. dev and test: mean ± standard deviation "
        "over seeds; tokens and seconds: means a seed. A configuration is chosen for each task by its mean on dev, "
        "which is why that score flatters it; its test score, read once and shown of the chosen one alone, does not."
    )
