"""The end of an experiment. In: its finished runs and selections. Out: ``results.json``, tables, pictures, archives.

Written from what is there, also when the experiment is unfinished: each row says how many seeds it has.
"""

from __future__ import annotations

import statistics as stats
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.analysis.page.plots import available, write_plots
from aang_core.analysis.statistics import paired_t_test, shown_interval
from aang_core.analysis.submission import sheets, write_submission
from aang_core.data.auxiliary import read_selection
from aang_core.files import write_text
from aang_core.rundir.finished import read_runs
from aang_core.rundir.report import read_report, spread, versions, write_json
from aang_core.study.arms import MATCHED, RANDOM, Arm
from aang_core.study.experiment.spec import ExperimentSpec
from aang_core.study.experiment.tables import markdown
from aang_core.study.score_curve import Score, score_curve

SCHEMA = 1
_CLOCKS = ("cpu_seconds", "seconds")


def run_directory(out: Path, target: str, arm: Arm, seed: int) -> Path:
    """Where one run of an experiment lies; `target` is the task's short name."""
    return out / "runs" / target / arm.name / f"seed-{seed}"


@attrs.frozen(eq=False, kw_only=True)
class Outcome:
    """One finished run.

    :param scores: split → metric → score; test is missing where it has no labels.
    :param selecting, training: seconds of the selection and of the run, by clock. :param counts: task → examples.
    """

    seed: int
    directory: Path
    metric: str
    scores: Mapping[str, Mapping[str, float]]
    selecting: Mapping[str, float]
    training: Mapping[str, float]
    counts: Mapping[str, int]
    tokens: float

    def score(self, split: str) -> float | None:
        """The task's own metric."""
        return self.scores[split][self.metric] if split in self.scores else None


def write_results(spec: ExperimentSpec, names: Sequence[str], out: Path) -> dict[str, Any]:
    """Everything that finished runs allow to say.

    :param names: the targets' short names.
    :returns: the contents of ``results.json``.
    """
    rows, comparisons, planned, done = [], [], 0, 0
    for name in names:
        outcomes = {arm: _outcomes(spec, out, name, arm) for arm in spec.arms}
        planned += len(spec.arms) * len(spec.seeds)
        done += sum(map(len, outcomes.values()))
        costs = {arm.name: _mean_cost(found) for arm, found in outcomes.items() if found}
        rows += [_row(name, arm, found, costs) for arm, found in outcomes.items() if found]
        comparisons += list(_comparisons(name, outcomes))
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "title": spec.title,
        "targets": list(names),
        "seeds": list(spec.seeds),
        "runs": {"planned": planned, "finished": done},
        "rows": rows,
        "comparisons": comparisons,
        "submissions": _submissions(spec, names, out) if done == planned else [],
        "remarks": list(_remarks(spec, planned, done)),
        "versions": versions(),
    }
    write_json(out / "results.json", results)
    pictures = _pictures(spec, results, out) if rows and available() else []
    write_text(out / "results.md", markdown(results, pictures))
    return results


def _outcomes(spec: ExperimentSpec, out: Path, name: str, arm: Arm) -> list[Outcome]:
    places = ((seed, run_directory(out, name, arm, seed)) for seed in spec.seeds)
    return [
        _outcome(place, out / "selections" / name / f"seed-{seed}", arm, seed)
        for seed, place in places
        if (place / "report.json").is_file()
    ]


def _outcome(place: Path, selections: Path, arm: Arm, seed: int) -> Outcome:
    report = read_report(place)
    [own] = report["seeds"]
    selecting, counts = dict.fromkeys(_CLOCKS, 0.0), {}
    if arm.selector:
        selection = read_selection(selections / arm.source)
        selecting = {clock: selection.summary["cost"][clock] for clock in _CLOCKS}
        counts = {task: len(rows) for task, rows in selection.top(arm.top).items()}
    return Outcome(
        seed=seed,
        directory=place,
        metric=report["metric"],
        scores={split: own[split] for split in ("dev", "test") if own[split]},
        selecting=selecting,
        training={"cpu_seconds": own["cost"]["cpu_seconds"], "seconds": own["seconds"]},
        counts=counts,
        tokens=own["cost"]["tokens"],
    )


def _mean_cost(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Selection and training together, by clock."""
    return {c: stats.fmean(o.selecting[c] + o.training[c] for o in outcomes) for c in _CLOCKS}


def _row(
    name: str, arm: Arm, outcomes: Sequence[Outcome], costs: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """One arm of one target; `costs`: those of each arm that has finished runs."""
    total, full = costs[arm.name], costs.get("full")
    tasks = sorted({task for outcome in outcomes for task in outcome.counts})
    return {
        "target": name,
        "arm": arm.name,
        "selector": arm.selector,
        "like": arm.like,
        "top": arm.top,
        "metric": outcomes[0].metric,
        "seeds": [outcome.seed for outcome in outcomes],
        "dev": _spread(outcomes, "dev"),
        "test": _spread(outcomes, "test"),
        "examples": {t: stats.fmean(o.counts.get(t, 0) for o in outcomes) for t in tasks},
        "tokens": stats.fmean(outcome.tokens for outcome in outcomes),
        "selection": {c: stats.fmean(o.selecting[c] for o in outcomes) for c in _CLOCKS},
        "training": {c: stats.fmean(o.training[c] for o in outcomes) for c in _CLOCKS},
        "total": dict(total),
        "of_full": {c: total[c] / full[c] for c in _CLOCKS} if full else None,
    }


def _spread(outcomes: Sequence[Outcome], split: str) -> dict[str, Any] | None:
    """Mean and sample deviation over seeds, and each seed's score; None where one of them has none."""
    values = {str(o.seed): o.score(split) for o in outcomes}
    scores = [value for value in values.values() if value is not None]
    if len(scores) < len(values):
        return None
    return {**spread(scores), "values": values}


def _comparisons(name: str, outcomes: Mapping[Arm, Sequence[Outcome]]) -> Iterator[dict[str, Any]]:
    """Each selector against every control of the same N, and against what has none; seed by seed."""
    for arm, own in outcomes.items():
        if arm.selector in ("", RANDOM, MATCHED):
            continue
        for other, theirs in outcomes.items():
            same = other.top in (0, arm.top) and other.like in ("", arm.selector)
            if not same or other.selector not in ("", RANDOM, MATCHED):
                continue
            for split in ("dev", "test"):
                if found := _difference(own, theirs, split):
                    yield {"target": name, "arm": arm.name, "against": other.name, **found}


def _difference(
    own: Sequence[Outcome], theirs: Sequence[Outcome], split: str
) -> dict[str, Any] | None:
    """Own minus theirs, over the seeds that both have."""
    mine = {o.seed: o.score(split) for o in own}
    other = {o.seed: o.score(split) for o in theirs}
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
        "interval": shown_interval(first, second),
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


def _submissions(spec: ExperimentSpec, names: Sequence[str], out: Path) -> list[str]:
    """An archive an arm, with the seed that dev prefers for each target; none where test was cut, or there is none."""
    written: list[str] = []
    for arm in () if spec.rows.test else spec.arms:
        best = []
        for name in names:
            found = _outcomes(spec, out, name, arm)
            chosen = max(found, key=lambda o: o.score("dev") or 0.0)
            if (chosen.directory / "predictions.jsonl").is_file():
                best.append(chosen.directory)
        if not best:
            continue
        path = out / "submissions" / f"{arm.name}.zip"
        path.unlink(missing_ok=True)
        write_submission(sheets(read_runs(best)), path)
        written.append(path.relative_to(out).as_posix())
    return written


def _pictures(spec: ExperimentSpec, results: Mapping[str, Any], out: Path) -> list[str]:
    """A curve a target, of test scores where there are any."""
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
