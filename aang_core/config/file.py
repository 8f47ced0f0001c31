"""Step 1 of 9, its file. In: a TOML file and flags. Out: RunConfig; and back, complete and re-runnable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.fields import RecordOf
from aang_core.config.schema import rule_at, toml_value
from aang_core.config.settings import RunConfig, Suggest
from aang_core.errors import AangError, ConfigError
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
    suggest: Suggest | None = None,
) -> RunConfig:
    """A file, then flags over it, then ``--set`` over both.

    :param path: a TOML file; None for the defaults.
    :param flags: dotted key → (value, the flag it comes from), only for flags that were given.
    :param assignments: ``KEY=VALUE`` texts, as in `parse_settings`.
    :param suggest: as in `RunConfig.from_mapping`.
    :raises ConfigError: names every fault with its line or flag.
    """
    raw, origins = read_config(path) if path is not None else ({}, {})
    merged = overlaid(raw, origins, {**flags, **parse_settings(assignments)})
    return RunConfig.from_mapping(*merged, suggest)


def read_config(
    path: Path, what: str = "the configuration", error: type[AangError] = ConfigError
) -> tuple[dict[str, Any], dict[str, str]]:
    """A TOML file's raw tables, and the origins of their keys for `schema.checked`: dotted key → ``file:line``.

    :param what: what messages call the file.
    :raises AangError: of the class `error`, where the file cannot be read or is no TOML.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        raw = toml_of(text)
    except OSError as cause:
        raise error(f"cannot read {what} {path}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not valid TOML: it is not UTF-8: {cause}") from cause
    except ValueError as cause:
        raise error(f"{path} is not valid TOML: {cause}") from cause
    lines = {key: f"{path}:{line}" for key, line in key_lines(text).items()}
    return raw, {"": str(path), **lines}


def key_lines(text: str) -> dict[str, int]:
    """Dotted key → the line (from 1) where a valid TOML text first sets it or opens its table.

    The tables of a list are counted: ``runs[1].name`` is a key of the second ``[[runs]]``.
    """
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.fullmatch(line), _KEY.match(line)
        if header:
            table = path = _numbered(_split(header[1]), counts, line.lstrip().startswith("[["))
        elif key:
            path = (*table, *_split(key[1]))
        else:
            continue
        for length in range(1, len(path) + 1):
            *outer, last = path[:length]
            for name in (last.partition("[")[0], last):
                lines.setdefault(".".join((*outer, name)), number)
    return lines


def _numbered(path: tuple[str, ...], counts: dict[str, int], opens: bool) -> tuple[str, ...]:
    """A header's path with the places of the tables of lists in it.

    :param counts: by path, the place of the newest table of a list. :param opens: whether the header begins another.
    """
    found: tuple[str, ...] = ()
    for place, part in enumerate(path, 1):
        key = ".".join((*found, part))
        if opens and place == len(path):
            counts[key] = counts.get(key, -1) + 1
        found = (*found, f"{part}[{counts[key]}]" if key in counts else part)
    return found


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
    raw: Mapping[str, Any], origins: Mapping[str, str], flags: Mapping[str, tuple[Any, str]]
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


def parse_settings(
    assignments: Iterable[str], record: type = RunConfig
) -> dict[str, tuple[Any, str]]:
    """``meta.alignment=dot`` → {"meta.alignment": ("dot", "--set meta.alignment=dot")}, read by the setting's rule.

    :param record: whose settings they are.
    :raises ConfigError: where an assignment has no key or no equals sign.
    """
    flags: dict[str, tuple[Any, str]] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not key or not equals or not _split(key):
            raise ConfigError(
                f"--set {assignment}: expected KEY=VALUE, such as --set meta.alignment=dot"
            )
        rule = rule_at(RecordOf(record), _split(key))
        value = toml_value(text) if rule is None else rule.read(text)
        flags[key] = (value, f"--set {assignment}")
    return flags


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
