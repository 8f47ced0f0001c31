"""The ways to train that a selection is compared with, and what each of them selects: for experiments and `aang run`.

Fixed words: an arm is one way to train; N is how many auxiliary examples it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.batch.protocols import no_op
from aang_core.data.auxiliary import SETTINGS, Selection
from aang_core.registry.registry import Registry
from aang_core.selection.job import select
from aang_core.selection.settings import SelectionConfig

CONTROLS = ("none", "random", "random-matched", "full")
"""Plain fine-tuning; a random draw; a random draw with the selection's counts of each task; every example there is."""

RANDOM, MATCHED = "random", "random-matched"


@attrs.frozen(kw_only=True)
class Arm:
    """One way to train, the same for every target and seed.

    :param selector: what chooses the examples; empty for ``none`` and ``full``.
    :param top: N; 0 where nothing is chosen.
    :param like: the selector whose counts of each task a random draw repeats.
    """

    name: str
    selector: str = ""
    top: int = 0
    like: str = ""

    @property
    def label(self) -> str:
        """What legends call it, whatever its N."""
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


def made_selection(
    arm: Arm,
    settings: SelectionConfig,
    options: Mapping[str, Any],
    directory: Path,
    like: Path,
    registry: Registry,
    progress: Callable[[str, int, int], None] = no_op,
) -> Selection:
    """An arm's selection: read where it is finished, gone on with where it was broken off, else made.

    :param settings: shared by all arms. :param options: of the arm's selector, where it is no control.
    :param like: the selection whose counts a matched draw repeats.
    :raises AangError: as `job.select` does.
    """
    config = attrs.evolve(settings, selector=arm.selector, options=dict(options))
    if arm.selector in (RANDOM, MATCHED):  # no pictures of what chance has chosen
        own = {"like": str(like)} if arm.like else {}
        config = attrs.evolve(config, options=own, picture_rows=0)
    begun = (directory / SETTINGS).is_file()
    return select(config, out=directory, resume=begun, registry=registry, progress=progress)
