"""Step 4 of 9, first half. In: a space's name or file, and primitives to add. Out: a checked Space."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from aang_core.errors import ConfigError, PluginError, did_you_mean, one_message
from aang_core.files import toml_of
from aang_core.registry.records import STAGES, Block, Space
from aang_core.registry.registry import Registry

_KEYS = ("name", "summary", "source", "optional", "block")


def resolve_space(name_or_path: str, registry: Registry, with_: Iterable[str] = ()) -> Space:
    """The space of this name or in this TOML file, with more primitives in every block.

    A file holds ``[[block]]`` tables, each with the lists ``data``, ``transform``, ``representation`` and
    ``output``; beside them ``name``, ``summary``, ``source`` and ``optional`` (data sources that may be missing).

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
    extra = tuple(with_)
    faults = [*_unknown_names(space, registry, where), *_unknown_extras(extra, registry)]
    if faults:
        raise ConfigError(one_message(faults, where))
    return attrs.evolve(space, blocks=tuple(_extended(b, extra, registry) for b in space.blocks))


def read_space(path: Path) -> Space:
    """A space from its TOML file; whether its primitives exist is not checked here.

    :raises ConfigError: names the file and every fault in it.
    """
    raw = _read_toml(path)
    faults = [
        f"{path}: unknown key {key!r}{did_you_mean(key, _KEYS)}" for key in raw if key not in _KEYS
    ]
    texts = {key: raw.get(key, "") for key in ("name", "summary", "source")}
    faults += [
        f"{path}: `{key}` must be a text (got {value!r})"
        for key, value in texts.items()
        if not isinstance(value, str)
    ]
    optional = _names(raw.get("optional", []), f"{path}: `optional`", faults)
    blocks = _read_blocks(raw.get("block", []), path, faults)
    listed = {name for block in blocks for name in block.data}
    if not faults:
        faults += [
            f"{path}: `optional` lists {name!r}, which no block has as data"
            + did_you_mean(name, listed)
            for name in optional
            if name not in listed
        ]
    if faults:
        raise ConfigError(one_message(faults, str(path)))
    name = texts["name"] or re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "space"
    texts |= {"name": name, "summary": texts["summary"] or f"from {path.name}"}
    try:
        return Space(blocks=blocks, optional=frozenset(optional), **texts)
    except PluginError as cause:  # the record's own check of its name
        raise ConfigError(f"{path}: {cause}") from cause


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return toml_of(path.read_text("utf-8"))
    except OSError as cause:
        raise ConfigError(f"cannot read the space file {path}: {cause.strerror}") from cause
    except ValueError as cause:
        raise ConfigError(f"{path} is not valid TOML: {cause}") from cause


def _read_blocks(raw: Any, path: Path, faults: list[str]) -> tuple[Block, ...]:
    """The ``[[block]]`` tables; what is wrong with them is added to `faults`."""
    if not isinstance(raw, list) or not all(isinstance(block, dict) for block in raw) or not raw:
        faults.append(
            f"{path}: expected at least one [[block]] table with the lists {', '.join(STAGES)}"
        )
        return ()
    blocks = []
    for number, table in enumerate(raw, 1):
        where = f"{path}, block {number}"
        faults += [
            f"{where}: unknown key {key!r}{did_you_mean(key, STAGES)}"
            for key in table
            if key not in STAGES
        ]
        stages = {}
        for stage in STAGES:
            stages[stage] = _names(table.get(stage, []), f"{where}: `{stage}`", faults)
            if stage not in table or table[stage] == []:
                faults.append(f"{where}: `{stage}` must list at least one primitive")
        blocks.append(Block(**stages))
    return tuple(blocks)


def _names(raw: Any, where: str, faults: list[str]) -> tuple[str, ...]:
    if isinstance(raw, list) and all(isinstance(name, str) for name in raw):
        return tuple(dict.fromkeys(raw))
    faults.append(f"{where} must be a list of names (got {raw!r})")
    return ()


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
