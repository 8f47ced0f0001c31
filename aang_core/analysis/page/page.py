"""One self-contained HTML page about a run. It sends no request, and all data in it are escaped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from aang_core.analysis.answer import gain
from aang_core.analysis.compare import agreements
from aang_core.analysis.examples import changed, mistakes
from aang_core.analysis.history import Estimate
from aang_core.analysis.page.answer import answer_of
from aang_core.analysis.page.figures import figures
from aang_core.analysis.page.plots import Plot, available, inline_svg
from aang_core.analysis.page.story import Story, read_story
from aang_core.config.file import dump_config
from aang_core.data.audit import findings
from aang_core.errors import RunError
from aang_core.markdown import interval_of, mean_and_std, p_value_of
from aang_core.rundir.finished import FinishedRun, read_against, read_run, read_runs
from aang_core.rundir.report import engine_said, seed_report
from aang_core.train.finish.race import is_kept

PAGE = "report.html"
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Head and rows."""

_NAMED = 4  # objectives that an alarm names
_LONGEST = 400  # characters of a text that the table of predictions shows


def build_story(run: FinishedRun, others: Sequence[FinishedRun] = ()) -> Story:
    """A run's story, with its gains over each of the others.

    :raises RunError: where a run cannot be compared with this one.
    """
    return read_story(run, [(other.name, gain(other, run)) for other in others])


def told(run: FinishedRun, others: Sequence[FinishedRun] = ()) -> tuple[Story, list[Story]]:
    """A run's story and those of the runs it is compared with: `others`, or where there are none its own baseline.

    Of a baseline that ``aang run --against`` has trained, and that is no longer beside the run, the answer is kept.

    :raises RunError: where a run cannot be compared with this one.
    """
    place = run.baseline
    if not others and place is not None and not (place / "report.json").is_file():
        return read_story(run, kept=read_against(run.path)), []
    if not others and place is not None:
        run, other = read_runs([run.path, place])
        others = [other]
    return build_story(run, others), [read_story(other) for other in others]


def page(
    story: Story, others: Sequence[Story] = (), theory: Sequence[tuple[str, str]] = ()
) -> tuple[str, list[Plot]]:
    """The page's HTML, and the plots in it.

    :param others: stories of the runs in `story.gains`; predictions are compared with the first.
    :param theory: rows of `theory_estimates.lines`, for the section that is there on request.
    :raises RunError: where matplotlib is missing.
    """
    report = story.run.report
    plots = figures(story)
    lead = next(plot for plot in plots if plot.name in ("gains", "dev-curve"))
    space = f" over {report['space']}" if report["space"] else ""
    pages = Environment(
        loader=PackageLoader("aang_core.analysis.page", "."), autoescape=True, trim_blocks=True
    )
    pages.filters["code"] = _with_code
    html = pages.get_template("page.html").render(
        title=f"{report['task']}: {report['method']}{space}",
        under=f"{report['model']} · {len(story.run.seeds)} seed(s) · aang {report['versions'].get('aang', '')}",
        answer=answer_of(story),
        facts=_facts(story),
        notes=_notes(story, others),
        remarks=_remarks(report),
        drawn=[(plot, Markup(inline_svg(plot)), plot is lead) for plot in plots],
        seeds=_seeds(report, story.run.headline),
        races=_races(report),
        gains=_gains(story),
        predictions=_predictions(story, others),
        theory=theory,
        provenance=_provenance(story.run),
        config=dump_config(story.run.config),
    )
    return html, plots


def write_page(path: Path, html: str) -> None:
    """:raises RunError: where the file cannot be written."""
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as cause:
        raise RunError(f"cannot write {path}: {cause.strerror}") from cause


def write_run_page(directory: Path) -> Path | None:
    """``report.html`` of a run that has just ended; None without matplotlib, an extra, or with ``AANG_PAGE=none``."""
    if not available() or os.environ.get("AANG_PAGE") == "none":
        return None
    html, _ = page(*told(read_run(directory)))
    write_page(directory / PAGE, html)
    return directory / PAGE


def _facts(story: Story) -> list[tuple[str, str]]:
    """(value, name) of what stands small beside the answer."""
    report, run = story.run.report, story.run
    metric, summary = run.headline, report["summary"]
    names = {
        "test": f"test {metric}",
        "test_deduplicated": f"test {metric}, unseen examples only",
        "dev": f"dev {metric}",
    }
    if any(seed.get("refit") for seed in report["seeds"]):
        names["dev"] += ", before it was trained on dev too"
    facts = [
        (mean_and_std(summary[s]["metrics"][metric], 3), name)
        for s, name in names.items()
        if summary.get(s)
    ]
    if story.searched:
        facts.append((str(report["objectives"]), "objectives"))
    if report["weights"]["objectives"]:
        facts.append((f"{report['weights']['end_task']:.3f}", "end-task share λ"))
    return [
        *facts,
        (f"{run.cost('tokens'):,.0f}", "tokens a seed"),
        (f"{run.cost('seconds'):,.0f}", "seconds a seed"),
        (f"{max(s['peak_memory_mib'] for s in report['seeds']):,.0f} MiB", "memory"),
    ]


def _notes(story: Story, others: Sequence[Story] = ()) -> list[tuple[str, str]]:
    """(kind, text): negative transfer, gains over further runs, agreement of seeds, and data findings."""
    report, notes = story.run.report, []
    if story.searched and (harmful := [e for e in story.estimates if e.harmful]):
        notes.append(("bad", _alarm(harmful)))
    kinds = {"helped": "good", "hurt": "bad"}
    notes += [
        (kinds.get(found["verdict"], ""), f"Over {name}: {found['said']}")
        for name, found in story.gains
        if name != story.hardest[0]  # which the page begins with
    ]
    controls = [other.run for other in others if other.run.is_control]
    agreed = agreements([story.run, *controls])
    if story.control and not controls:
        agreed = story.control["agreement"]
        notes.append(("", f"Control with shuffled weights: {story.control['said']}"))
    if agreed:
        notes.append(("", f"L{agreed[1:]}"))
    audit = report.get("audit")
    if found := findings(audit) if audit else []:
        notes.append(("bad", f"Data: {'; '.join(found)}"))
    return notes


def _remarks(report: Mapping[str, Any]) -> list[str]:
    """What the run remarked, once for all seeds."""
    own = [str(remark) for remark in report["remarks"]]
    return list(dict.fromkeys([*own, *(r for seed in report["seeds"] for r in seed["remarks"])]))


def _with_code(text: str) -> Markup:
    """Words between backticks as code; all else is escaped."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # one of them has no partner
        return escape(text)
    shown = [
        Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts)
    ]
    return Markup("").join(shown)


def _alarm(harmful: Sequence[Estimate]) -> str:
    """The objectives that pull against dev, the worst first."""
    worst = sorted(harmful, key=lambda estimate: estimate.mean)
    shown = [f"{e.id} ({e.mean:+.3f} ± {e.error:.3f})" for e in worst[:_NAMED]]
    more = f" and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
    return (
        f"Negative transfer, mean alignments more than two standard errors below 0: {len(worst)} of the losses: "
        f"{', '.join(shown)}{more}"
    )


def _seeds(report: Mapping[str, Any], first: str) -> Table:
    """:param first: the metric that stands before the others."""
    splits = [s for s in ("dev", "test", "test_deduplicated") if report["seeds"][0].get(s)]
    names = [
        (split, metric)
        for split in splits
        for metric in sorted(report["seeds"][0][split], key=lambda name: name != first)
    ]
    head = ["seed", "steps", "best step", *(f"{s} {m}".replace("_", " ") for s, m in names)]
    rows = [
        [str(seed[key]) for key in ("seed", "steps", "best_step")]
        + [f"{(seed[s] or {}).get(m, float('nan')):.4f}" for s, m in names]
        for seed in report["seeds"]
    ]
    return head, rows


def _races(report: Mapping[str, Any]) -> Table:
    """Every training of every seed's race; no row where there was none."""
    rows = [
        [
            str(seed["seed"]),
            each["name"] + (" (kept)" if is_kept(each, race) else ""),
            str(each["steps"]),
            str(each["best_step"]),
            f"{each['dev'].get(race['metric'], float('nan')):.4f}",
            f"{each['cost']['tokens']:,.0f}",
            f"{each['cpu_seconds']:,.0f}",
        ]
        for seed in report["seeds"]
        if (race := seed.get("race"))
        for each in race["tried"]
    ]
    return ["seed", "candidate", "most steps", "best step", "dev", "tokens", "CPU s"], rows


def _gains(story: Story) -> Table:
    rows = [
        [
            name,
            metric,
            f"{f['delta']:+.4f}",
            " ".join(f"{d:+.4f}" for d in f["deltas"]),
            p_value_of(f["p_value"]) or "–",
            interval_of(f["interval"]) or "–",
        ]
        for name, found in story.gains
        for metric, f in found["metrics"].items()
    ]
    return ["over", "metric", "gain", "per seed", "p", "95 %"], rows


def _predictions(story: Story, others: Sequence[Story]) -> tuple[str, Table]:
    """A title and its table, without a row where there is nothing to show."""
    own = story.predictions
    rows = changed(own, others[0].predictions) if others else mistakes(own)
    what = str(next(iter(rows[0]["inputs"]), "input")) if rows else "input"
    if others:
        title = f"Most changed predictions, against {others[0].run.name}"
        head = [what, "true", "before", "now", "change of its probability"]
    else:
        title = "Most certain mistakes"
        head = [what, "true", "predicted", "probability of the true one"]
    cells = [
        [_shown(row["inputs"]), row["gold"], row["before"], row["after"], f"{row['change']:+.3f}"]
        if others
        else [_shown(row["inputs"]), row["gold"], row["after"], f"{row['change']:.3f}"]
        for row in rows
    ]
    return title, (head, cells)


def _shown(inputs: Mapping[str, Any]) -> str:
    text = " ‖ ".join(str(value) for value in inputs.values())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _provenance(run: FinishedRun) -> list[tuple[str, str]]:
    report = run.report
    plugins = [f"{name} ({origin})" for name, origin in report["plugins"].items()]
    return [
        ("model", report["model"]),
        ("engine", engine_said([seed_report(seed) for seed in report["seeds"]])),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        ),
        ("plugins", ", ".join(plugins)),
    ]
