"""All hooks. A plugin is a module named in the entry-point group ``aang``.

Every hook returns records and changes nothing::

    # my_package/hooks.py                     [project.entry-points.aang]
    from aang_core import Transform, hookimpl #   my-plugin = "my_package.hooks"

    @hookimpl
    def aang_transforms():
        return [Transform(name="reverse", summary="Reverse the tokens", factory="my_package.reverse:Reverse")]
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from aang_core.registry.records import (
    BackboneKind,
    CallbackKind,
    DataSource,
    Logger,
    NamedObjective,
    Output,
    Representation,
    Selector,
    Space,
    TaskKind,
    Transform,
    Weighting,
)

hookspec = pluggy.HookspecMarker("aang")
hookimpl = pluggy.HookimplMarker("aang")


@hookspec
def aang_data_sources() -> Iterable[DataSource]:  # type: ignore[empty-body]
    """Stage 1: where rows come from."""


@hookspec
def aang_transforms() -> Iterable[Transform]:  # type: ignore[empty-body]
    """Stage 2: how rows are corrupted."""


@hookspec
def aang_representations() -> Iterable[Representation]:  # type: ignore[empty-body]
    """Stage 3: which positions each position may attend to."""


@hookspec
def aang_outputs() -> Iterable[Output]:  # type: ignore[empty-body]
    """Stage 4: losses that read the hidden states."""


@hookspec
def aang_spaces() -> Iterable[Space]:  # type: ignore[empty-body]
    """Named unions of products of primitives."""


@hookspec
def aang_named_objectives() -> Iterable[NamedObjective]:  # type: ignore[empty-body]
    """The literature's names for single objectives."""


@hookspec
def aang_backbones() -> Iterable[BackboneKind]:  # type: ignore[empty-body]
    """Families of encoders."""


@hookspec
def aang_tasks() -> Iterable[TaskKind]:  # type: ignore[empty-body]
    """Registered tasks."""


@hookspec
def aang_selectors() -> Iterable[Selector]:  # type: ignore[empty-body]
    """Ways to choose auxiliary examples."""


@hookspec
def aang_loggers() -> Iterable[Logger]:  # type: ignore[empty-body]
    """Places that receive a run's history as it grows."""


@hookspec
def aang_weightings() -> Iterable[Weighting]:  # type: ignore[empty-body]
    """Rules by which the weights of objectives learn."""


@hookspec
def aang_callbacks() -> Iterable[CallbackKind]:  # type: ignore[empty-body]
    """What follows trainings step by step, keeps a state in their checkpoints, and may end them."""
