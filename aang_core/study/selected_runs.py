"""One selection, several ways to train on it. In: a configuration, several N, controls. Out: a run directory each.

::

    OUT/SELECTOR-top-N      the selection's N best
    OUT/none, OUT/full      plain fine-tuning; every example of the pools
    OUT/random-top-N, …     the other controls, whose selections lie in OUT/selections
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from aang_core.analysis.compare import Comparison, compare_runs
from aang_core.analysis.page.plots import available, write_plots
from aang_core.config.settings import RunConfig
from aang_core.data.auxiliary import SETTINGS, read_selection
from aang_core.registry.registry import Registry
from aang_core.rundir.directory import JobDirectory
from aang_core.rundir.finished import read_runs
from aang_core.selection.settings import load_selection_config
from aang_core.study.arms import Arm, arm_settings, arms_of, made_selection
from aang_core.study.run import run_or_resume
from aang_core.study.score_curve import Score, score_curve
from aang_core.train.callbacks import Watcher
from aang_core.train.resolve import resolve


@attrs.frozen(eq=False, kw_only=True)
class _Way:
    """An arm with its configuration, and where it lies."""

    arm: Arm
    config: RunConfig
    directory: Path


def run_selected(
    config: RunConfig,
    tops: Sequence[int],
    controls: Sequence[str],
    out: Path,
    registry: Registry,
    *,
    resume: bool = False,
    jobs: int = 1,
    watcher: Watcher | None = None,
) -> Comparison:
    """Train on the best of a selection for several N, with controls beside it, and compare them.

    :param config: of one such run, with `RunConfig.selection`; its `top` is replaced.
    :param controls: of `arms.CONTROLS`. :param resume: keep what is finished, go on with the rest.
    :raises AangError: for everything that the user can mend, before any training where that is possible.
    """
    heard = watcher or Watcher()
    names = [arm.name for arm in _arms(config, tops, controls)]
    place = JobDirectory(path=out, what="comparison", mark=".lock", known=(*names, "selections"))
    with place.taken(resume):
        ways = _ways(config, tops, controls, out, registry, heard)
        for way in ways:  # what is wrong with the last of them is said before the first begins
            resolve(way.config, registry)
        for way in ways:
            if not (way.directory / "report.json").is_file():
                heard.on_remark(f"{way.arm.name}: {way.directory}")
                run_or_resume(
                    way.config, way.directory, jobs=jobs, watcher=watcher, registry=registry
                )
        found = compare_runs(read_runs([way.directory for way in ways]))
        if available():
            _draw(found, ways, out)
    return found


def _arms(config: RunConfig, tops: Sequence[int], controls: Sequence[str]) -> tuple[Arm, ...]:
    """The selection's own arm with its controls."""
    given = Path(config.selection).expanduser()
    return arms_of([read_selection(given).summary["selector"]], controls, tops)


def _ways(
    config: RunConfig,
    tops: Sequence[int],
    controls: Sequence[str],
    out: Path,
    registry: Registry,
    watcher: Watcher,
) -> list[_Way]:
    """Every arm, with the selections of the random controls made."""
    given = Path(config.selection).expanduser()
    summary = read_selection(given).summary
    ways = []
    for arm in _arms(config, tops, controls):
        place = given
        if arm.selector and arm.selector != summary["selector"]:
            place = out / "selections" / arm.source
            settings = load_selection_config(given / SETTINGS)
            made_selection(arm, settings, {}, place, given, registry, watcher.on_preparation)
        own = arm_settings(arm, str(place), list(summary["pools"].values()))
        ways.append(_Way(arm=arm, config=attrs.evolve(config, **own), directory=out / arm.name))
    return ways


def _draw(found: Comparison, ways: Sequence[_Way], out: Path) -> None:
    """``scores.svg`` and ``scores.png``: each selector over N, and the level of what has none."""
    rows = zip(ways, found.rows, strict=True)
    scores = [Score(way.arm, row["mean"], row["std"]) for way, row in rows]
    measure = f"{found.split} {found.metric}"
    title = f"{measure} against the number of selected examples"
    write_plots([score_curve("scores", title, measure, scores)], out)
