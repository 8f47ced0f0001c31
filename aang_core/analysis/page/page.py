"""One self-contained HTML page about a run: no request leaves it, and everything in it is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from aang_core.analysis.compare import compare_runs
from aang_core.analysis.history import Estimate
from aang_core.analysis.page.changed_predictions import changed, mistakes
from aang_core.analysis.page.figures import figures
from aang_core.analysis.page.plots import Plot, available, inline_svg
from aang_core.analysis.page.story import Story, read_story
from aang_core.config.file import dump_config
from aang_core.data.audit import findings
from aang_core.errors import RunError
from aang_core.rundir.finished import FinishedRun, read_run
from aang_core.rundir.report import engine_said, seed_report

PAGE = "report.html"
_NAMED = 4  # objectives that an alarm names
_LONGEST = 400  # characters of a text that the table of predictions shows


def build_story(run: FinishedRun, others: Sequence[FinishedRun] = ()) -> Story:
    """A run's story, with its gains over each of the others.

    :raises RunError: where a run cannot be compared with this one.
    """
    gains = [(other.name, compare_runs([other, run]).rows[1]) for other in others]
    return read_story(run, gains)


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
    parts = [
        _cards(story),
        _notes(story),
        "<h2>What happened</h2>",
        f'<div class="figures">{"".join(map(_figure, plots))}</div>',
        _seeds(report),
        _comparison(story),
        _predictions(story, others),
        _theory(theory),
        _provenance(story.run),
    ]
    space = f" over {report['space']}" if report["space"] else ""
    template = Template(files("aang_core.analysis.page").joinpath("page.html").read_text("utf-8"))
    html = template.substitute(
        title=escape(f"{report['task']}: {report['method']}{space}"),
        under=escape(
            f"{report['model']} · {len(story.run.seeds)} seed(s) · aang {report['versions'].get('aang', '')}"
        ),
        body="\n".join(part for part in parts if part),
    )
    return html, plots


def write_page(path: Path, html: str) -> None:
    """:raises RunError: where the file cannot be written."""
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as cause:
        raise RunError(f"cannot write {path}: {cause.strerror}") from cause


def write_run_page(directory: Path) -> Path | None:
    """``report.html`` of a run that has just ended; None where matplotlib, an extra, is not installed."""
    if not available():
        return None
    html, _ = page(build_story(read_run(directory)))
    write_page(directory / PAGE, html)
    return directory / PAGE


def _mean(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    return f"{found['mean']:.3f}" + (f" ± {found['std']:.3f}" if found["std"] is not None else "")


def _cards(story: Story) -> str:
    report = story.run.report
    metric, summary, run = report["metric"], report["summary"], story.run
    cards = [(f"dev {metric}", _mean(summary["dev"]))]
    if summary.get("test"):
        cards.insert(0, (f"test {metric}", _mean(summary["test"])))
    if summary.get("test_deduplicated"):
        cards.insert(
            1, (f"test {metric}, unseen examples only", _mean(summary["test_deduplicated"]))
        )
    cards += [(f"{row['metric']} over {name}", f"{row['delta']:+.4f}") for name, row in story.gains]
    if story.searched:
        cards.append(("objectives", str(report["objectives"])))
    if report["weights"]["objectives"]:
        cards.append(("end-task share λ", f"{report['weights']['end_task']:.3f}"))
    cards += [
        ("tokens a seed", f"{run.cost('tokens'):,.0f}"),
        ("seconds a seed", f"{run.cost('seconds'):,.0f}"),
        ("memory", f"{max(s['peak_memory_mib'] for s in report['seeds']):,.0f} MiB"),
    ]
    boxes = (
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in cards
    )
    return f'<div class="cards">{"".join(boxes)}</div>'


def _notes(story: Story) -> str:
    """Negative transfer, data findings, and what the run remarked."""
    report, notes = story.run.report, []
    if story.searched and (harmful := [e for e in story.estimates if e.harmful]):
        notes.append(("bad", _alarm(harmful)))
    for name, row in story.gains:
        low, high = row["interval"] or (float("-inf"), float("inf"))
        kind = "good" if low > 0 else "bad" if high < 0 else ""
        notes.append((kind, _gain(name, row)))
    if audit := report.get("audit"):
        notes += [("bad", f"Data: {finding}") for finding in findings(audit)]
    notes += [("", str(remark)) for remark in report["remarks"]]
    said = dict.fromkeys(remark for seed in report["seeds"] for remark in seed["remarks"])
    notes += [("", remark) for remark in said]
    items = "".join(f'<li class="{kind}">{escape(text)}</li>' for kind, text in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _alarm(harmful: Sequence[Estimate]) -> str:
    """The objectives that pull against dev, the worst first."""
    worst = sorted(harmful, key=lambda estimate: estimate.mean)
    shown = [f"{e.id} ({e.mean:+.3f} ± {e.error:.3f})" for e in worst[:_NAMED]]
    more = f" and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
    return (
        f"Negative transfer, mean alignments more than two standard errors below 0: {len(worst)} of the losses: "
        f"{', '.join(shown)}{more}"
    )


def _gain(name: str, row: Mapping[str, Any]) -> str:
    text = f"{100 * row['delta']:+.2f} points of {row['split']} {row['metric']} over {name}"
    if row["interval"]:
        low, high = (100 * value for value in row["interval"])
        text += f" (95 % interval {low:+.2f} to {high:+.2f}"
        text += f", p = {row['p_value']:.3f})" if row["p_value"] is not None else ")"
    found = row["detectable"] or {}
    if found.get("both") is not None:
        text += f"; this study could have shown {100 * found['both']:.2f}"
    return text


def _figure(plot: Plot) -> str:
    return (
        f'<figure id="{escape(plot.name)}"><h3>{escape(plot.title)}</h3>{inline_svg(plot)}'
        f"<figcaption>{escape(plot.note)}</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int] = ()) -> str:
    """:param texts: columns that hold long texts."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{"text" if at in texts else "number"}">{escape(cell)}</td>'
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _seeds(report: Mapping[str, Any]) -> str:
    splits = [s for s in ("dev", "test", "test_deduplicated") if report["seeds"][0].get(s)]
    names = [(split, metric) for split in splits for metric in report["seeds"][0][split]]
    head = ["seed", "steps", "best step", *(f"{s} {m}".replace("_", " ") for s, m in names)]
    rows = [
        [str(seed[key]) for key in ("seed", "steps", "best_step")]
        + [f"{(seed[s] or {}).get(m, float('nan')):.4f}" for s, m in names]
        for seed in report["seeds"]
    ]
    return "<h2>Every seed</h2>" + _table(head, rows)


def _comparison(story: Story) -> str:
    if not story.gains:
        return ""
    rows = [
        [
            name,
            metric,
            f"{f['delta']:+.4f}",
            "–" if f["p_value"] is None else f"{f['p_value']:.3f}",
            "–" if f["interval"] is None else "{:+.4f} to {:+.4f}".format(*f["interval"]),
        ]
        for name, row in story.gains
        for metric, f in row["metrics"].items()
    ]
    return "<h2>Gains over other runs</h2>" + _table(["over", "metric", "gain", "p", "95 %"], rows)


def _predictions(story: Story, others: Sequence[Story]) -> str:
    rows = changed(story, others[0]) if others else mistakes(story)
    if not rows:
        return ""
    cells = [
        [
            _shown(row["inputs"]),
            row["gold"],
            *([row["before"]] if others else []),
            row["after"],
            f"{row['change']:+.3f}" if others else f"{row['change']:.3f}",
        ]
        for row in rows
    ]
    if others:
        title = f"Most changed predictions, against {others[0].run.name}"
        head = [_input(rows), "true", "before", "now", "change of its probability"]
    else:
        title, head = (
            "Most certain mistakes",
            [_input(rows), "true", "predicted", "probability of the true one"],
        )
    return f"<h2>{escape(title)}</h2>" + _table(head, cells, texts=[0])


def _input(rows: Sequence[Mapping[str, Any]]) -> str:
    """The name of what was judged: ``text``, ``image``, …"""
    return str(next(iter(rows[0]["inputs"]), "input"))


def _shown(inputs: Mapping[str, Any]) -> str:
    text = " ‖ ".join(str(value) for value in inputs.values())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _theory(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    return "<h2>Stability bound (paper, Theorem E.5)</h2>" + _table(
        ["quantity", "value and how it was estimated"], rows, texts=[1]
    )


def _provenance(run: FinishedRun) -> str:
    report = run.report
    versions = [f"{name} {version}" for name, version in report["versions"].items()]
    plugins = [f"{name} ({origin})" for name, origin in report["plugins"].items()]
    rows = [
        ["model", report["model"]],
        ["engine", engine_said([seed_report(seed) for seed in report["seeds"]])],
        ["versions", ", ".join(versions)],
        ["plugins", ", ".join(plugins)],
    ]
    return (
        "<h2>Where this comes from</h2>"
        + _table(["what", "value"], rows, texts=[1])
        + f"<details><summary>config.toml</summary><pre>{escape(dump_config(run.config))}</pre></details>"
    )
