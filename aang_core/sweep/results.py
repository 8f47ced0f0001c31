"""What a sweep found. In: its plan and the reports of finished trials. Out: rows, ``results.json``, ``results.md``.

Configurations are chosen by the mean dev score over their seeds, among those whose seeds are all finished, and for each
task alone. Test scores are shown of the chosen ones only: who looks at all of them chooses by test in the end.
"""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.config import RunConfig
from aang_core.durable import write_text
from aang_core.errors import RunError
from aang_core.report import read_report, write_json
from aang_core.sweep.trial import Trial

SCHEMA = 1


@attrs.frozen(kw_only=True)
class Plan:
    """A sweep before its first trial.

    :param configurations: by name, in the order of the specification.
    :param places: name → the configuration's run directory.
    :param trials: seeds outermost, so that a sweep that is stopped early has compared all configurations on some.
    """

    title: str
    directory: Path
    configurations: Mapping[str, RunConfig]
    places: Mapping[str, Path]
    trials: tuple[Trial, ...]


def is_finished(trial: Trial) -> bool:
    """Whether a trial's report is there."""
    return (trial.directory / "report.json").is_file()


def plain_settings(config: RunConfig) -> dict[str, Any]:
    """Every setting by dotted key, without the seeds."""
    found: dict[str, Any] = {}
    for name, value in attrs.asdict(config).items():
        key = name.rstrip("_")
        if key in ("training", "meta", "heads"):
            found |= {f"{key}.{inner}": part for inner, part in value.items()}
        elif key == "primitives":
            found |= {f"{key}.{p}.{k}": v for p, table in value.items() for k, v in table.items()}
        elif key != "seeds":
            found[key] = value
    return found


def differing_settings(configurations: Mapping[str, RunConfig]) -> dict[str, dict[str, Any]]:
    """Name → the settings in which the configurations are not all alike."""
    plain = {name: plain_settings(config) for name, config in configurations.items()}
    keys = dict.fromkeys(key for table in plain.values() for key in table)
    varied = [key for key in keys if len({repr(table.get(key)) for table in plain.values()}) > 1]
    return {name: {key: table.get(key) for key in varied} for name, table in plain.items()}


def results(plan: Plan, errors: Mapping[str, str], threads: int | None) -> dict[str, Any]:
    """The document of ``results.json``.

    :param errors: the name of a trial → why it failed for the last time.
    :param threads: of each trial; where two sweeps differ in them, so may the last bits of their scores.
    """
    differing = differing_settings(plan.configurations)
    reports = {trial.name: _report(trial) for trial in plan.trials if is_finished(trial)}
    rows = [_row(plan, name, differing[name], reports) for name in plan.configurations]
    chosen = _chosen(rows)
    for row in rows:
        row["chosen"] = chosen.get(row["task"]) == row["configuration"]
        row["test"] = _test(plan, row, reports) if row["chosen"] else None
    return {
        "schema": SCHEMA,
        "title": plan.title,
        "chosen": chosen,
        "configurations": rows,
        "trials": [_trial_row(plan, trial, reports, errors) for trial in plan.trials],
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


def read_results(directory: Path) -> dict[str, Any]:
    """``results.json`` of a sweep.

    :raises RunError: where it is missing or damaged.
    """
    path = directory / "results.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        schema = found["schema"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise RunError(f"{directory} holds no results of a sweep ({path}: {cause})") from cause
    if schema != SCHEMA:
        raise RunError(f"{path} has the schema {schema}; this version of aang reads {SCHEMA}")
    return found


def _report(trial: Trial) -> Mapping[str, Any]:
    """A finished trial's seed, with the names of its task and metric.

    :raises RunError: where the report is damaged.
    """
    report = read_report(trial.directory)
    try:
        (seed,) = report["seeds"]
        return {**seed, "metric": report["metric"], "dev": seed["dev"], "cost": seed["cost"]}
    except (KeyError, TypeError, ValueError) as cause:
        raise RunError(
            f"{trial.directory / 'report.json'} is damaged ({cause}); delete {trial.directory} and sweep again"
        ) from cause


def _row(
    plan: Plan,
    name: str,
    settings: Mapping[str, Any],
    reports: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    trials = [trial for trial in plan.trials if trial.configuration == name]
    done = {str(t.seed): reports[t.name] for t in trials if t.name in reports}
    metric = next((report["metric"] for report in done.values()), None)
    values = {seed: report["dev"][metric] for seed, report in done.items()}
    return {
        "configuration": name,
        "task": plan.configurations[name].task,
        "settings": dict(settings),
        "metric": metric,
        "seeds": len(trials),
        "finished": len(done),
        "dev": _spread(list(values.values())),
        "values": values,
        "test": None,
        "chosen": False,
        "tokens": _mean([report["cost"]["tokens"] for report in done.values()]),
        "seconds": _mean([report["seconds"] for report in done.values()]),
        "directory": str(plan.places[name].relative_to(plan.directory)),
    }


def _trial_row(
    plan: Plan,
    trial: Trial,
    reports: Mapping[str, Mapping[str, Any]],
    errors: Mapping[str, str],
) -> dict[str, Any]:
    state = "waiting"
    if trial.name in reports:
        state = "finished"
    elif trial.name in errors:
        state = "failed"
    return {
        "configuration": trial.configuration,
        "seed": trial.seed,
        "state": state,
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


def _test(
    plan: Plan, row: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Mean and deviation on test; None where test has no labels."""
    own = [
        reports[trial.name]["test"]
        for trial in plan.trials
        if trial.configuration == row["configuration"]
    ]
    return _spread([scores[row["metric"]] for scores in own]) if all(own) else None


def _spread(values: Sequence[float]) -> dict[str, float | None] | None:
    """Mean and sample standard deviation; the latter None for a single value."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


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
        "dev": shown_spread(row["dev"]),
        "metric": row["metric"] or "",
        "seeds": f"{row['finished']}/{row['seeds']}",
        "chosen": "yes" if row["chosen"] else "",
        "test": shown_spread(row["test"]),
        "tokens": "" if row["tokens"] is None else f"{row['tokens']:,.0f}",
        "seconds": "" if row["seconds"] is None else f"{row['seconds']:,.0f}",
        "directory": row["directory"],
    }


def shown_spread(found: Mapping[str, float | None] | None) -> str:
    """``0.8123 ± 0.0102``."""
    if found is None:
        return ""
    spread = "" if found["std"] is None else f" ± {found['std']:.4f}"
    return f"{found['mean']:.4f}{spread}"


def as_markdown(found: Mapping[str, Any]) -> str:
    """The results as a page."""
    rows = [cells(row) for row in ranked(found)]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    table = "\n".join(
        "| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )
    parts = [f"# {_escaped(found['title'])}", table, _reading(found)]
    failed = [trial for trial in found["trials"] if trial["state"] == "failed"]
    if failed:
        listed = [
            _escaped(f"- {t['configuration']}, seed {t['seed']}: {t['error']}") for t in failed
        ]
        parts += ["## Failed", "\n".join(listed)]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """One line without markup of HTML: names and messages come from files."""
    return html.escape(" ".join(text.split()), quote=False)


def _reading(found: Mapping[str, Any]) -> str:
    states = [trial["state"] for trial in found["trials"]]
    return (
        f"{states.count('finished')} of {len(states)} trials are finished. dev and test: mean ± standard deviation "
        "over seeds; tokens and seconds: means a seed. A configuration is chosen for each task by its mean on dev, "
        "which is why that score flatters it; its test score, read once and shown of the chosen one alone, does not."
    )
