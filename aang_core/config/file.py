"""Step 1 of 9, its file. In: a TOML file and flags. Out: RunConfig; and back, complete and re-runnable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.schema import Rule, Texts, rules_of, toml_value
from aang_core.config.settings import SECTIONS, RunConfig
from aang_core.errors import ConfigError
from aang_core.files import toml_of

_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*([\w\-.\"' ]+?)\s*=")


def load_config(path: Path) -> RunConfig:
    """The configuration in a TOML file.

    :raises ConfigError: where the file cannot be read, or holds faults; each is named with its line.
    """
    return RunConfig.from_mapping(*read_config(path))


def build_config(
    path: Path | None,
    flags: Mapping[str, tuple[Any, str]],
    assignments: Iterable[str] = (),
) -> RunConfig:
    """A file, then flags over it, then ``--set`` over both.

    :param path: a TOML file; None for the defaults.
    :param flags: dotted key → (value, the flag it comes from), only for flags that were given.
    :param assignments: ``KEY=VALUE`` texts, as in `parse_settings`.
    :raises ConfigError: names every fault with its line or flag.
    """
    raw, origins = read_config(path) if path is not None else ({}, {})
    merged = overlaid(raw, origins, {**flags, **parse_settings(assignments)})
    return RunConfig.from_mapping(*merged)


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A TOML file's raw settings, and dotted key → ``file:line`` for messages about them.

    :raises ConfigError: where the file cannot be read or is no TOML.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as cause:
        raise ConfigError(f"cannot read the configuration {path}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise ConfigError(f"{path} is not UTF-8: {cause}") from cause
    try:
        raw = toml_of(text)
    except ValueError as cause:
        raise ConfigError(f"{path} is not valid TOML: {cause}") from cause
    return raw, {key: f"{path}:{line}" for key, line in key_lines(text).items()}


def key_lines(text: str) -> dict[str, int]:
    """Dotted key → the line (from 1) where a valid TOML text first sets it or opens its table."""
    lines: dict[str, int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.fullmatch(line), _KEY.match(line)
        if header:
            table = path = _split(header[1])
        elif key:
            path = (*table, *_split(key[1]))
        else:
            continue
        for length in range(1, len(path) + 1):
            lines.setdefault(".".join(path[:length]), number)
    return lines


def _split(key: str) -> tuple[str, ...]:
    """The parts of a dotted, perhaps quoted TOML key; none where a line only looked like one."""
    try:
        nested: Any = toml_of(f"{key} = 0")
    except ValueError:
        return ()
    parts = []
    while isinstance(nested, dict):
        ((part, nested),) = nested.items()
        parts.append(part)
    return tuple(parts)


def overlaid(
    raw: Mapping[str, Any],
    origins: Mapping[str, str],
    flags: Mapping[str, tuple[Any, str]],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings with flags over them.

    :param flags: dotted key → (value, the flag it comes from). A table's entries are laid over one by one.
    :returns: new raw settings and origins, for `RunConfig.from_mapping`.
    :raises ConfigError: where a flag sets a key inside something that is no table.
    """
    merged = _copied(raw)
    where = dict(origins)
    for key, (value, origin) in flags.items():
        *tables, last = _split(key) or (key,)
        target = merged
        for name in tables:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{origin}: `{name}` is no table, so it has no `{last}`")
        old = target.get(last)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        target[last] = {**old, **value} if both else value  # type: ignore[dict-item]
        where[".".join((*tables, last))] = origin
    return merged, where


def parse_settings(assignments: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """``meta.alignment=dot`` → {"meta.alignment": ("dot", "--set meta.alignment=dot")}, read by the setting's kind.

    :raises ConfigError: where an assignment has no key or no equals sign.
    """
    flags: dict[str, tuple[Any, str]] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not key or not equals or not _split(key):
            raise ConfigError(
                f"--set {assignment}: expected KEY=VALUE, such as --set meta.alignment=dot"
            )
        rule = _rule_of(_split(key))
        value = toml_value(text) if rule is None else rule.read(text)
        flags[key] = (value, f"--set {assignment}")
    return flags


def _rule_of(path: tuple[str, ...]) -> Rule | None:
    """The rule of a setting; None where there is no such setting, or a primitive has to say."""
    if len(path) == 1:
        return rules_of(RunConfig).get(path[0])
    if len(path) != 2:
        return None
    if path[0] in SECTIONS:
        return rules_of(SECTIONS[path[0]]).get(path[1])
    parent = rules_of(RunConfig).get(path[0])
    return parent.entry if isinstance(parent, Texts) else None


def dump_config(config: RunConfig) -> str:
    """The whole configuration as TOML; `load_config` gives an equal one back."""
    import tomli_w

    plain = {key.rstrip("_"): value for key, value in attrs.asdict(config).items()}
    if config.meta.objectives_per_step == 0:
        plain["meta"]["objectives_per_step"] = "all"
    if config.training.auxiliary_rows == 0:
        plain["training"]["auxiliary_rows"] = "proportional"
    return tomli_w.dumps(plain)


def from_keywords(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Python's keywords in TOML's spelling: ``with_`` as ``with``, and paths, also those in a list, as texts."""
    return {name.rstrip("_"): _without_paths(value) for name, value in settings.items()}


def _without_paths(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_without_paths(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _copied(table: Mapping[str, Any]) -> dict[str, Any]:
    """A copy down to the innermost table, so that laying flags over it leaves the original alone."""
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in table.items()}
