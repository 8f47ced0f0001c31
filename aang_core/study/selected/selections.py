"""Training on selected examples: the ways to do it, what each of them selects, and the runs of one selection.

Fixed words: an arm is one way to train; N is how many auxiliary examples it keeps. `run_selected` (``aang run
--selection DIR --top N --top M --control none``) leaves::

    OUT/SELECTOR-top-N      the selection's N best
    OUT/none, OUT/full      plain fine-tuning; every example of the pools
    OUT/random-top-N, …     the other controls, whose selections lie in OUT/selections
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from aang_core.analysis.compare import Comparison, compare_runs
from aang_core.analysis.page.plots import (
    COLOURS,
    QUIET,
    Plot,
    available,
    legend_below,
    says,
    write_plots,
)
from aang_core.batch.protocols import no_op
from aang_core.config.settings import RunConfig
from aang_core.data.auxiliary import SETTINGS, Selection, read_selection
from aang_core.errors import ConfigError
from aang_core.registry.records import MATCHED, RANDOM
from aang_core.registry.registry import Registry
from aang_core.rundir.directory import JobDirectory
from aang_core.rundir.finished import read_runs
from aang_core.selection.job import select
from aang_core.selection.settings import SelectionConfig, load_selection_config
from aang_core.study.run import run_trials
from aang_core.study.trials.trial import Trial, check_kept
from aang_core.train.callbacks import Callback
from aang_core.train.resolve import resolve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@attrs.frozen(kw_only=True)
class Arm:
    """One way to train, the same for every target and seed.

    :param selector: what chooses the examples, or which control; empty for ``none`` and ``full``.
    :param top: N; 0 where nothing is chosen.
    :param like: the selector whose counts of each task a random draw repeats.
    """

    name: str
    selector: str = ""
    top: int = 0
    like: str = ""

    @property
    def label(self) -> str:
        """Its name in legends, without N."""
        if self.like:
            return f"{MATCHED} ({self.like})"
        return self.selector or {"none": "fine-tune alone", "full": "full multi-task"}[self.name]

    @property
    def source(self) -> str:
        """The selection that it trains on, which arms with different N share."""
        return f"{MATCHED}-{self.like}" if self.like else self.selector


def arms_of(
    selectors: Sequence[str], controls: Sequence[str], tops: Sequence[int]
) -> tuple[Arm, ...]:
    """All arms: the controls without a selection first, then by N, each selector before its controls."""
    return tuple(_arms(selectors, controls, tops))


def _arms(selectors: Sequence[str], controls: Sequence[str], tops: Sequence[int]) -> Iterator[Arm]:
    for name in ("none", "full"):
        if name in controls:
            yield Arm(name=name)
    for top in tops:
        for selector in selectors:
            yield Arm(name=f"{selector}-top-{top}", selector=selector, top=top)
        if RANDOM in controls:
            yield Arm(name=f"{RANDOM}-top-{top}", selector=RANDOM, top=top)
        if MATCHED in controls:
            for selector in selectors:
                name = f"{MATCHED}-{selector}-top-{top}"
                yield Arm(name=name, selector=MATCHED, top=top, like=selector)


def arm_settings(arm: Arm, selection: str, pools: Sequence[str]) -> dict[str, Any]:
    """What distinguishes an arm's run from the others'; fields of a `config.RunConfig`.

    :param selection: the directory of its selection. :param pools: the tasks that are selected from.
    """
    if arm.name == "none":
        return {"method": "finetune", "selection": "", "top": 0, "aux_tasks": ()}
    if arm.name == "full":
        return {"selection": "", "top": 0, "aux_tasks": tuple(pools)}
    return {"selection": selection, "top": arm.top, "aux_tasks": ()}


def control_named(control: str, registry: Registry) -> str:
    """The selector that is this control.

    :raises ConfigError: where none is, or several are.
    """
    names = [name for name, e in registry.selectors.items() if e.record.control == control]
    if len(names) != 1:
        found = " and ".join(map(repr, names)) or "none"
        raise ConfigError(f"expected one selector that is the control {control!r}, found {found}")
    return names[0]


def made_selection(
    arm: Arm,
    settings: SelectionConfig,
    options: Mapping[str, Any],
    directory: Path,
    like: Path,
    registry: Registry,
    progress: Callable[[str, int, int], None] = no_op,
) -> Selection:
    """An arm's selection: read if it is finished, resumed if it was interrupted, else made.

    :param settings: shared by all arms. :param options: of the arm's selector, unless it is a control.
    :param like: the selection whose counts a matched draw repeats.
    :raises AangError: as `job.select` does.
    """
    if arm.selector in (RANDOM, MATCHED):  # no pictures of what chance has chosen
        own = {"like": str(like)} if arm.like else {}
        chance = control_named(arm.selector, registry)
        config = attrs.evolve(settings, selector=chance, options=own, picture_rows=0)
    else:
        config = attrs.evolve(settings, selector=arm.selector, options=dict(options))
    begun = (directory / SETTINGS).is_file()
    return select(config, out=directory, resume=begun, registry=registry, progress=progress)


def run_selected(
    config: RunConfig,
    tops: Sequence[int],
    controls: Sequence[str],
    out: Path,
    registry: Registry,
    *,
    resume: bool = False,
    jobs: int = 1,
    callback: Callback | None = None,
) -> Comparison:
    """Train on the best of a selection for several N, with controls beside it, and compare them.

    :param config: of one such run, with `RunConfig.selection`; its `top` is replaced.
    :param controls: of `CONTROLS`. :param resume: keep what is finished, and continue the rest.
    :raises AangError: for everything that the user can mend, before any training if possible; with `resume` also if
        a run that is there has other settings.
    """
    told, given = callback or Callback(), Path(config.selection).expanduser()
    summary = read_selection(given).summary
    arms = arms_of([summary["selector"]], controls, tops)
    drawn = [arm for arm in arms if arm.selector not in ("", summary["selector"])]
    places = {arm: out / "selections" / arm.source if arm in drawn else given for arm in arms}
    pools = list(summary["pools"].values())
    trials = [
        Trial(
            configuration=arm.name,
            config=attrs.evolve(config, **arm_settings(arm, str(places[arm]), pools)),
            directory=out / arm.name,
        )
        for arm in arms
    ]
    known = ("selections", *(arm.name for arm in arms))
    place = JobDirectory(path=out, what="comparison", mark=".lock", known=known)
    with place.taken(resume):
        check_kept(trials, f"the runs in {out}")
        settings = load_selection_config(given / SETTINGS)
        for arm in drawn:
            made_selection(arm, settings, {}, places[arm], given, registry, told.on_preparation)
        for trial in trials:  # report every fault before the first run starts
            resolve(trial.config, registry)

        def named(trial: Trial) -> None:
            told.on_remark(f"{trial.name}: {trial.directory}")

        run_trials(trials, registry, callback, jobs=jobs, before=named)
        found = compare_runs(read_runs([trial.directory for trial in trials]))
        _draw(arms, found, out)
    return found


def _draw(arms: Sequence[Arm], found: Comparison, out: Path) -> None:
    """Draw ``scores.png`` beside the runs: each selector over N, and a level for each arm without N."""
    if available():
        rows = zip(arms, found.rows, strict=True)
        scores = [Score(arm, row["mean"], row["std"]) for arm, row in rows]
        measure = f"{found.split} {found.metric}"
        title = f"{measure} against the number of selected examples"
        write_plots([score_curve("scores", title, measure, scores)], out)


@attrs.frozen
class Score:
    """An arm's mean score over seeds. :param std: over seeds; None for one seed."""

    arm: Arm
    mean: float
    std: float | None


def _logarithmic(axes: Axes, tops: Sequence[int]) -> None:
    """An x axis of N, with a tick for each of these."""
    axes.set_xscale("log")
    axes.set_xticks(tops, [str(top) for top in tops])
    axes.minorticks_off()
    axes.set_xlim(0.8 * tops[0], 1.25 * tops[-1])
    axes.set_xlabel("selected examples, N")


def score_curve(name: str, title: str, measure: str, scores: Sequence[Score]) -> Plot:
    """A line over N for each way to select, with standard deviations as error bars, and a level for each arm without N.

    :param name: of its files. :param measure: what the y axis is.
    """
    lines: dict[str, list[Score]] = {}
    for score in scores:
        if score.arm.top:
            lines.setdefault(score.arm.label, []).append(score)
    levels = [score for score in scores if not score.arm.top]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (label, own) in enumerate(lines.items()):
            colour = COLOURS[number % len(COLOURS)]
            # beside each other, where error bars would hide one another
            shift = 1 + 0.02 * (number - (len(lines) - 1) / 2)
            axes.errorbar(
                [shift * score.arm.top for score in own],
                [score.mean for score in own],
                yerr=[score.std or 0.0 for score in own],
                color=colour,
                marker="o",
                markersize=4,
                capsize=2,
                label=label,
            )
        styles = ("--", ":", "-.")
        for level, style in zip(levels, itertools.cycle(styles)):
            axes.axhline(
                level.mean, color=QUIET, linestyle=style, linewidth=1.2, label=level.arm.label
            )
        _logarithmic(axes, sorted({score.arm.top for score in scores if score.arm.top}))
        says(axes, measure)
        legend_below(axes, columns=2)

    rows = -(-(len(lines) + len(levels)) // 2)
    return Plot(
        name=name,
        title=title,
        note="Means over seeds; bars are one standard deviation.",
        draw=draw,
        height=2.8 + 0.18 * rows,
    )
