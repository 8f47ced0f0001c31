"""Step 4 of 9, first half. In: a space's name or file, and primitives to add. Out: a checked Space."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.file import read_config
from aang_core.config.schema import Anything, ListOf, Table, TableOf, Text, faults_of, said
from aang_core.config.settings import OPTION_TABLES, WITHOUT_OBJECTIVES, Suggest, laid_over
from aang_core.errors import ConfigError, PluginError, did_you_mean, one_message
from aang_core.registry.records import STAGES, Block, Space
from aang_core.registry.registry import Registry

_NAMES = ListOf(Text(), 1, "primitive", unique=False)
_SETTABLE = ("method", "space", "with", "training", "meta", "heads", *OPTION_TABLES)
"""What a candidate of a race may set; the rest is the run's, the same for all."""

_FORM = Table(
    {
        "name": Text(empty=True),
        "summary": Text(empty=True),
        "source": Text(empty=True),
        "optional": ListOf(Text(), unique=False),
        "block": ListOf(
            Table(dict.fromkeys(STAGES, _NAMES), required=STAGES), 1, "[[block]] table", False
        ),
        "candidates": TableOf(TableOf(Anything()), 1, "candidate"),
    }
)


def resolve_space(name_or_path: str, registry: Registry, with_: Iterable[str] = ()) -> Space:
    """The space of this name or in this TOML file, with more primitives in every block.

    A file holds ``[[block]]`` tables, each with the lists ``data``, ``transform``, ``representation`` and
    ``output``; beside them ``name``, ``summary``, ``source`` and ``optional`` (data sources that may be missing). The
    file of a race holds ``[candidates.NAME]`` tables of settings.

    :param with_: names of primitives, each added to its stage in every block.
    :raises ConfigError: for an unknown space or primitive, or a file that is malformed; names every fault.
    """
    if name_or_path in registry.spaces:
        space, where = registry.spaces[name_or_path].record, f"space {name_or_path!r}"
    elif name_or_path.endswith(".toml") or Path(name_or_path).is_file():
        space, where = read_space(Path(name_or_path)), name_or_path
    else:
        hint = "; or give a TOML file of blocks"
        raise ConfigError(registry.unknown("space", name_or_path, registry.spaces) + hint)
    space = _with_candidates_blocks(space, registry)
    extra = tuple(with_)
    faults = [*_unknown_names(space, registry, where), *_unknown_extras(extra, registry)]
    if faults:
        raise ConfigError(one_message(faults, where))
    return attrs.evolve(space, blocks=tuple(_extended(b, extra, registry) for b in space.blocks))


def _with_candidates_blocks(space: Space, registry: Registry) -> Space:
    """A race without blocks of its own has those of its candidates' spaces.

    :raises ConfigError: where the candidates are not as they must be.
    """
    if not space.candidates or space.blocks:
        return space
    faults = check_candidates(space, registry)
    if faults:
        raise ConfigError(one_message(faults, f"space {space.name}"))
    named = dict.fromkeys(str(c["space"]) for c in space.candidates.values() if "space" in c)
    spaces = [resolve_space(name, registry) for name in named]
    return attrs.evolve(
        space,
        blocks=tuple(dict.fromkeys(block for each in spaces for block in each.blocks)),
        optional=space.optional.union(*(each.optional for each in spaces)),
    )


def check_candidates(space: Space, registry: Registry) -> list[str]:
    """What is wrong with the candidates of a race, apart from their settings' values."""
    faults = []
    for name, settings in space.candidates.items():
        where = f"candidate {name}"
        faults += [
            f"{where} sets {key!r}, and a candidate can set {', '.join(_SETTABLE)}"
            for key in settings
            if key not in _SETTABLE
        ]
        if "refit" in settings.get("training", {}):
            faults.append(f"{where} sets `training.refit`, which belongs to the whole race")
        own = str(settings.get("space", ""))
        entry = registry.spaces.get(own)
        if own == space.name or (entry is not None and entry.record.candidates):
            faults.append(f"{where} names the space {own!r}, which is a race itself")
        if not own and settings.get("method") not in WITHOUT_OBJECTIVES and not space.blocks:
            faults.append(
                f"{where} needs a `space`, or the `method` {' or '.join(WITHOUT_OBJECTIVES)}"
            )
    return faults


def suggestions(registry: Registry) -> Suggest:
    """The settings that the registered space of a run suggests, for `RunConfig.from_mapping`.

    Plain fine-tuning and the probe have no space, so they get none. With a selection, `selection_defaults` go before
    the space's own.
    """

    def suggest(raw: Mapping[str, Any]) -> Mapping[str, Any]:
        over = selection_defaults(registry) if raw.get("selection") else {}
        entry = registry.spaces.get(str(raw.get("space", over.get("space", ""))))
        if entry is None or {**over, **raw}.get("method") in WITHOUT_OBJECTIVES:
            return over
        return laid_over(entry.record.settings, over)

    return suggest


def selection_defaults(registry: Registry) -> Mapping[str, Any]:
    """The defaults of a run that trains on a selection: the space that is for that, and what it sets.

    :raises ConfigError: where several spaces are for that.
    """
    found = [e.record for e in registry.spaces.values() if e.record.for_selection]
    if len(found) > 1:
        names = " and ".join(repr(space.name) for space in found)
        raise ConfigError(f"several spaces are for selections: {names}; choose with --plugins")
    return {"space": found[0].name, **found[0].for_selection} if found else {}


def read_space(path: Path) -> Space:
    """A space from its TOML file; whether its primitives exist is not checked here.

    :raises ConfigError: names the file and every fault in it.
    """
    raw, origins = read_config(path, "the space file")
    faults = faults_of(_FORM, raw, origins)
    if not faults and not {"block", "candidates"} & raw.keys():
        faults.append(
            f"{path}: expected at least one [[block]] table or [candidates.NAME] table, found neither"
        )
    if not faults:
        listed = {name for block in raw.get("block", ()) for name in block["data"]}
        faults += [
            said(("optional",), f"lists {name!r}, which no block has as data", origins)
            + did_you_mean(name, listed)
            for name in raw.get("optional", [])
            if name not in listed
        ]
    if faults:
        raise ConfigError(one_message(faults, str(path)))
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "space"
    try:
        return Space(
            name=raw.get("name") or name,
            summary=raw.get("summary") or f"from {path.name}",
            source=raw.get("source", ""),
            optional=frozenset(raw.get("optional", ())),
            blocks=tuple(
                Block(**{stage: dict.fromkeys(names) for stage, names in block.items()})
                for block in raw.get("block", ())
            ),
            candidates=raw.get("candidates", {}),
        )
    except PluginError as cause:  # the record's own check of its name
        raise ConfigError(f"{path}: {cause}") from cause


def _unknown_names(space: Space, registry: Registry, where: str) -> list[str]:
    """A fault for every name that no plugin has, or that belongs to another stage."""
    faults = []
    for number, block in enumerate(space.blocks, 1):
        for stage in STAGES:
            known = registry.at_stage(stage)
            place = f"{where}, block {number}, {stage}"
            for name in block.names(stage):
                if name not in registry.primitives:
                    faults.append(f"{place}: " + registry.unknown("primitive", name, known))
                elif name not in known:
                    other = registry.primitives[name].stage
                    faults.append(f"{place}: {name!r} belongs to the stage {other}, not {stage}")
    return faults


def _unknown_extras(extra: Iterable[str], registry: Registry) -> list[str]:
    return [
        "--with: " + registry.unknown("primitive", name, registry.primitives)
        for name in extra
        if name not in registry.primitives
    ]


def _extended(block: Block, extra: Iterable[str], registry: Registry) -> Block:
    """The block with more primitives, each behind those of its stage; a name counts once."""
    stages: Mapping[str, list[str]] = {stage: list(block.names(stage)) for stage in STAGES}
    for name in extra:
        stages[registry.primitives[name].stage].append(name)
    return Block(**{stage: tuple(dict.fromkeys(names)) for stage, names in stages.items()})
