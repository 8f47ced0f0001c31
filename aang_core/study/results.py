"""Scores and cost of finished trials. In: their reports. Out: rows, ``results.json`` and ``results.md``.

Of a sweep, configurations are chosen by the mean dev score over their seeds, among those whose seeds are all finished,
and for each task alone. Test scores are shown only for the chosen ones: if you look at all of them, you choose by
test. An experiment with selections compares arms seed by seed. Both tables are also written while trials are
unfinished; each row says how many seeds it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import attrs

from aang_core.analysis.page.plots import available, write_plots
from aang_core.analysis.statistics import Chance, paired_t_test
from aang_core.analysis.submission import sheets, write_submission
from aang_core.errors import RunError
from aang_core.files import write_text
from aang_core.markdown import interval_of, markdown_table, mean_and_std, one_line, p_value_of
from aang_core.registry.records import MATCHED, RANDOM
from aang_core.rundir.finished import read_runs
from aang_core.rundir.report import read_report, spread, versions, write_json
from aang_core.study.selected.selections import Arm, Score, score_curve
from aang_core.study.trials.trial import Trial, differing_settings

if TYPE_CHECKING:
    from aang_core.study.selected.experiment_spec import ExperimentSpec
    from aang_core.study.sweeps.sweep import SweepPlan

SCHEMA = 1
CLOCKS = ("cpu_seconds", "seconds")
_NO_COST = dict.fromkeys(CLOCKS, 0.0)


@attrs.frozen(eq=False, kw_only=True)
class Finished:
    """The facts of a finished trial of one seed.

    :param dev, test: scores by the task's `metric`; test is None where it has no labels.
    :param training, selecting: seconds of the run, and of the selection that it trains on, by clock.
    :param counts: task → selected examples.
    """

    seed: int
    directory: Path
    metric: str
    dev: float
    test: float | None
    tokens: float
    training: Mapping[str, float]
    selecting: Mapping[str, float] = _NO_COST
    counts: Mapping[str, int] = attrs.field(factory=dict)

    def score(self, split: str) -> float | None:
        """On ``dev`` or ``test``."""
        return self.dev if split == "dev" else self.test


def finished(trial: Trial) -> Finished:
    """:raises RunError: where the report is damaged."""
    report = read_report(trial.directory)
    metric = report["metric"]
    try:
        (own,) = report["seeds"]
        return Finished(
            seed=own["seed"],
            directory=trial.directory,
            metric=metric,
            dev=own["dev"][metric],
            test=own["test"][metric] if own["test"] else None,
            tokens=own["cost"]["tokens"],
            training={"cpu_seconds": own["cost"]["cpu_seconds"], "seconds": own["seconds"]},
        )
    except (KeyError, ValueError) as cause:
        raise RunError(
            f"{trial.directory / 'report.json'} is damaged ({cause}); delete {trial.directory} and begin it again"
        ) from cause


def over_seeds(trials: Sequence[Finished], split: str) -> dict[str, Any] | None:
    """``mean``, sample deviation ``std`` and ``values`` by seed; None if there is no seed, or one has no score."""
    values = {str(trial.seed): trial.score(split) for trial in trials}
    scores = [value for value in values.values() if value is not None]
    if not scores or len(scores) < len(values):
        return None
    return {**spread(scores), "values": values}


def _write(directory: Path, found: Mapping[str, Any], text: str) -> None:
    """:raises RunError: where the directory cannot be written to."""
    try:
        write_json(directory / "results.json", found)
        write_text(directory / "results.md", text)
    except OSError as cause:
        raise RunError(f"cannot write the results of {directory}: {cause.strerror}") from cause


# --- sweeps


def sweep_results(
    plan: SweepPlan, errors: Mapping[str, str], threads: int | None
) -> dict[str, Any]:
    """The document of a sweep's ``results.json``.

    :param errors: the name of a failed trial → why it failed.
    :param threads: of each trial. Scores of sweeps with other numbers of threads may differ in their last bits.
    """
    differing = differing_settings(plan.configurations)
    done = {trial.name: finished(trial) for trial in plan.trials if trial.is_finished}
    rows = [_sweep_row(plan, name, differing[name], done) for name in plan.configurations]
    chosen = _chosen(rows)
    for row in rows:
        row["chosen"] = chosen.get(row["task"]) == row["configuration"]
        row["test"] = row["test"] if row["chosen"] else None
    return {
        "schema": SCHEMA,
        "title": plan.title,
        "chosen": chosen,
        "configurations": rows,
        "trials": [_trial_row(plan, trial, trial.name in done, errors) for trial in plan.trials],
        "threads": threads,
    }


def _sweep_row(
    plan: SweepPlan, name: str, settings: Mapping[str, Any], done: Mapping[str, Finished]
) -> dict[str, Any]:
    trials = [trial for trial in plan.trials if trial.configuration == name]
    own = [done[trial.name] for trial in trials if trial.name in done]
    dev, test = over_seeds(own, "dev"), over_seeds(own, "test")
    return {
        "configuration": name,
        "task": plan.configurations[name].task,
        "settings": dict(settings),
        "metric": own[0].metric if own else None,
        "seeds": len(trials),
        "finished": len(own),
        "dev": dev and {key: dev[key] for key in ("mean", "std")},
        "values": dev["values"] if dev else {},
        "test": test and {key: test[key] for key in ("mean", "std")},
        "chosen": False,
        "tokens": fmean(trial.tokens for trial in own) if own else None,
        "seconds": fmean(trial.training["seconds"] for trial in own) if own else None,
        "directory": str(plan.places[name].relative_to(plan.directory)),
    }


def _trial_row(
    plan: SweepPlan, trial: Trial, is_finished: bool, errors: Mapping[str, str]
) -> dict[str, Any]:
    otherwise = "failed" if trial.name in errors else "waiting"
    return {
        "configuration": trial.configuration,
        "seed": trial.seed,
        "state": "finished" if is_finished else otherwise,
        "error": errors.get(trial.name, ""),
        "directory": str(trial.directory.relative_to(plan.directory)),
        "log": str(trial.log.relative_to(plan.directory)) if trial.log else "",
    }


def _chosen(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Task → the configuration with the best mean on dev; the first of equals. Every metric is better when larger."""
    whole = [row for row in rows if row["finished"] == row["seeds"]]
    tasks = dict.fromkeys(row["task"] for row in whole)
    best = {
        t: max((r for r in whole if r["task"] == t), key=lambda r: r["dev"]["mean"]) for t in tasks
    }
    return {task: row["configuration"] for task, row in best.items()}


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


def sweep_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A configuration for people: column → text."""
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


def sweep_page(found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    states = [trial["state"] for trial in found["trials"]]
    parts = [
        f"# {one_line(found['title'])}",
        markdown_table([sweep_cells(row) for row in ranked(found)]),
        f"{states.count('finished')} of {len(states)} trials are finished. dev and test: mean ± standard deviation "
        "over seeds; tokens and seconds: means a seed. A configuration is chosen for each task by its mean on dev, "
        "which is why that score flatters it; its test score, read once and shown of the chosen one alone, does not.",
    ]
    failed = [
        one_line(f"- {trial['configuration']}, seed {trial['seed']}: {trial['error']}")
        for trial in found["trials"]
        if trial["state"] == "failed"
    ]
    if failed:
        parts += ["## Failed", "\n".join(failed)]
    return "\n\n".join(parts) + "\n"


def write_sweep_results(directory: Path, found: Mapping[str, Any]) -> None:
    """``results.json`` and ``results.md``.

    :raises RunError: where the directory cannot be written to.
    """
    _write(directory, found, sweep_page(found))


# --- experiments with selections


def write_experiment_results(
    spec: ExperimentSpec, outcomes: Mapping[str, Mapping[Arm, Sequence[Finished]]], out: Path
) -> dict[str, Any]:
    """Write ``results.json``, tables, pictures and submission archives of the finished runs.

    :param outcomes: a target's short name → arm → its finished runs.
    :returns: the contents of ``results.json``.
    """
    planned = len(outcomes) * len(spec.arms) * len(spec.seeds)
    done = sum(len(own) for arms in outcomes.values() for own in arms.values())
    rows = [row for name, arms in outcomes.items() for row in _arm_rows(name, arms)]
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "title": spec.title,
        "targets": list(outcomes),
        "seeds": list(spec.seeds),
        "runs": {"planned": planned, "finished": done},
        "rows": rows,
        "comparisons": [c for name, arms in outcomes.items() for c in _comparisons(name, arms)],
        "submissions": _submissions(spec, outcomes, out) if done == planned else [],
        "remarks": list(_remarks(spec, planned, done)),
        "versions": versions(),
    }
    pictures = _pictures(spec, results, out) if rows and available() else []
    _write(out, results, experiment_page(results, pictures))
    return results


def _arm_rows(name: str, outcomes: Mapping[Arm, Sequence[Finished]]) -> Iterator[dict[str, Any]]:
    """A row for each arm of a target that has finished runs."""

    def mean(runs: Sequence[Finished]) -> dict[str, float]:
        return {c: fmean(run.selecting[c] + run.training[c] for run in runs) for c in CLOCKS}

    full = next((mean(runs) for arm, runs in outcomes.items() if arm.name == "full" and runs), None)
    for arm, runs in outcomes.items():
        if not runs:
            continue
        total, tasks = mean(runs), sorted({task for run in runs for task in run.counts})
        yield {
            "target": name,
            "arm": arm.name,
            "selector": arm.selector,
            "like": arm.like,
            "top": arm.top,
            "metric": runs[0].metric,
            "seeds": [run.seed for run in runs],
            "dev": over_seeds(runs, "dev"),
            "test": over_seeds(runs, "test"),
            "examples": {task: fmean(run.counts.get(task, 0) for run in runs) for task in tasks},
            "tokens": fmean(run.tokens for run in runs),
            "selection": {c: fmean(run.selecting[c] for run in runs) for c in CLOCKS},
            "training": {c: fmean(run.training[c] for run in runs) for c in CLOCKS},
            "total": total,
            "of_full": {c: total[c] / full[c] for c in CLOCKS} if full else None,
        }


def _comparisons(name: str, outcomes: Mapping[Arm, Sequence[Finished]]) -> Iterator[dict[str, Any]]:
    """Each selector against every control with the same N or none, seed by seed."""
    controls = ("", RANDOM, MATCHED)
    for arm, own in outcomes.items():
        if arm.selector in controls:
            continue
        for other, theirs in outcomes.items():
            same = other.top in (0, arm.top) and other.like in ("", arm.selector)
            if not same or other.selector not in controls:
                continue
            for split in ("dev", "test"):
                if found := _difference(own, theirs, split):
                    yield {"target": name, "arm": arm.name, "against": other.name, **found}


def _difference(
    own: Sequence[Finished], theirs: Sequence[Finished], split: str
) -> dict[str, Any] | None:
    """`own` minus `theirs`, over the seeds that both have."""
    mine, other = ({run.seed: run.score(split) for run in runs} for runs in (own, theirs))
    seeds = [s for s in mine if mine[s] is not None and other.get(s) is not None]
    if not seeds:
        return None
    first, second = [other[s] or 0.0 for s in seeds], [mine[s] or 0.0 for s in seeds]
    test = paired_t_test(first, second)
    return {
        "split": split,
        "seeds": seeds,
        "delta": test.mean,
        "p_value": test.p_value,
        "interval": Chance.of([b - a for a, b in zip(first, second, strict=True)]).interval(
            test.mean
        ),
    }


def _remarks(spec: ExperimentSpec, planned: int, done: int) -> Iterator[str]:
    if done < planned:
        yield f"{planned - done} of {planned} runs are not finished; go on with --resume"
    cut = {name: size for name, size in attrs.asdict(spec.rows).items() if size}
    if cut:
        sizes = ", ".join(f"{name} {size}" for name, size in cut.items())
        yield f"rows are drawn anew for each seed, at most: {sizes}"
    if spec.rows.test:
        yield "test is cut, so there are no submission files: they would not be whole"


def _submissions(
    spec: ExperimentSpec, outcomes: Mapping[str, Mapping[Arm, Sequence[Finished]]], out: Path
) -> list[str]:
    """One archive per arm, with the seed that is best on dev for each target; none if test was cut or is missing."""
    written: list[str] = []
    for arm in () if spec.rows.test else spec.arms:
        chosen = [max(arms[arm], key=lambda run: run.dev).directory for arms in outcomes.values()]
        best = [place for place in chosen if (place / "predictions.jsonl").is_file()]
        if not best:
            continue
        path = out / "submissions" / f"{arm.name}.zip"
        path.unlink(missing_ok=True)
        write_submission(sheets(read_runs(best)), path)
        written.append(path.relative_to(out).as_posix())
    return written


def _pictures(spec: ExperimentSpec, results: Mapping[str, Any], out: Path) -> list[str]:
    """A curve for each target, of test scores if there are any."""
    plots, arms = [], {arm.name: arm for arm in spec.arms}
    for name in results["targets"]:
        rows = [row for row in results["rows"] if row["target"] == name]
        if not any(row["top"] for row in rows):
            continue
        split = "test" if all(row["test"] for row in rows) else "dev"
        scores = [Score(arms[row["arm"]], row[split]["mean"], row[split]["std"]) for row in rows]
        measure = f"{split} {rows[0]['metric']}"
        title = f"{name}: {measure} against the number of selected examples"
        plots.append(score_curve(f"score-{name}", title, measure, scores))
    return [path.name for path in write_plots(plots, out)]


def experiment_page(results: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The tables of every target, the differences, and remarks; scores in per cent.

    :param pictures: file names beside the text.
    """
    parts = [f"# {one_line(results['title'])}", ""]
    for name in results["targets"]:
        rows = [row for row in results["rows"] if row["target"] == name]
        if not rows:
            continue
        scores = markdown_table([arm_cells(row) for row in rows])
        parts += [f"## {name}, {rows[0]['metric']}", "", scores, ""]
        if (picture := f"score-{name}.svg") in pictures:
            parts += [f"![{name}]({picture})", ""]
    if results["comparisons"]:
        differences = markdown_table([_difference_cells(each) for each in results["comparisons"]])
        parts += ["## Differences, seed by seed", "", differences, ""]
    if results["submissions"]:
        files = ", ".join(f"`{name}`" for name in results["submissions"])
        parts += [f"Predictions in the submission format of GLUE: {files}.", ""]
    parts += [f"- {remark}" for remark in results["remarks"]]
    return "\n".join(parts).rstrip() + "\n"


def arm_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """One arm, for people: column → text."""
    examples = ", ".join(f"{name} {count:.0f}" for name, count in row["examples"].items())
    return {
        "arm": row["arm"],
        "N": str(row["top"] or ""),
        "seeds": str(len(row["seeds"])),
        "dev": mean_and_std(row["dev"], 1, 100),
        "test": mean_and_std(row["test"], 1, 100),
        "examples of each task": examples,
        "CPU s: selection": f"{row['selection']['cpu_seconds']:.1f}",
        "training": f"{row['training']['cpu_seconds']:.1f}",
        "total": f"{row['total']['cpu_seconds']:.1f}",
        "of full": f"{row['of_full']['cpu_seconds']:.2f}" if row["of_full"] else "",
    }


def _difference_cells(found: Mapping[str, Any]) -> dict[str, str]:
    """One comparison, in points: column → text."""
    return {
        "target": found["target"],
        "arm": found["arm"],
        "minus": found["against"],
        "split": found["split"],
        "points": f"{100 * found['delta']:+.1f}",
        "95 %": interval_of(found["interval"], 1, 100),
        "p": p_value_of(found["p_value"]),
        "seeds": str(len(found["seeds"])),
    }
