"""Experiments as files. In: a TOML specification. Out: the name and `RunConfig` of every run in it.

::

    title = "…"
    [base]                          # what all runs share: any settings of a configuration
    task = "my_task"
    training = { max_steps = 600 }
    [[runs]]                        # one or more, each over the base
    name = "aang"
    space = "td"
    [grid]                          # optional: every combination, for every run
    "meta.factor_lr" = [1.0, 0.1]
    [random]                        # optional: points drawn at random, the same for every run
    trials = 20
    "training.lr" = { log-uniform = [1e-5, 1e-3] }

`aang_core.study.sweep.job` carries them out.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.file import key_lines, overlaid, read_config
from aang_core.config.settings import SECTIONS, RunConfig
from aang_core.errors import ConfigError, faults_in, nearest, one_message
from aang_core.study.sweep.draws import MOST, flat, read_random

_KEYS = frozenset({"title", "paper", "base", "runs", "grid", "random"})
_RUN = re.compile(r"\s*\[\[\s*runs\s*\]\]")

Flags = Mapping[str, tuple[Any, str]]
"""Dotted key → (value, where it was set)."""


@attrs.frozen(kw_only=True)
class Experiment:
    """:param title: what people call it; the file's name where it says nothing.
    :param runs: the configurations by name, in the order of the file.
    """

    title: str
    runs: Mapping[str, RunConfig]


def load_experiment(
    path: Path, *, tasks: Sequence[str] = (), flags: Flags | None = None, **over: Any
) -> Experiment:
    """A specification's runs; the names of those of a grid end with their settings (``aang, factor_lr=0.1``).

    :param tasks: run everything on each of these instead of the file's own.
    :param flags: settings over those of the file, each with the flag that it comes from.
    :param over: the same as keywords, such as ``task="elsewhere/"``.
    :raises ConfigError: where the file cannot be read, or with every fault of it.
    """
    raw, origins = read_config(path)
    given = {**(flags or {}), **{key: (value, f"{key}=") for key, value in over.items()}}
    if len(tasks) == 1:
        given["task"] = (tasks[0], "--task")
    faults = _misshapen(path, raw, origins)
    points = [] if faults else _points(raw, origins, tasks if len(tasks) > 1 else (), faults)
    if faults:
        raise ConfigError(one_message(faults, str(path)))
    base = raw.get("base", {})
    base_origins = {k.removeprefix("base."): v for k, v in origins.items() if k.startswith("base.")}
    lines = _run_lines(path, len(raw["runs"]))
    found: dict[str, RunConfig] = {}
    for run, own_lines in zip(raw["runs"], lines, strict=True):
        own = {
            key: (value, f"{_place(path, own_lines, key)} ({run['name']})")
            for key, value in _settings(run).items()
        }
        for name, point in _named(run["name"], points):
            try:
                if name in found:
                    raise ConfigError(f"{path}: two runs are named {name!r}")
                merged = overlaid(base, base_origins, {**own, **point, **given})
                found[name] = RunConfig.from_mapping(*merged)
            except ConfigError as error:
                faults += faults_in(str(error))
    faults += [f"{path}: {name!r} is no printable name" for name in found if not name.isprintable()]
    if faults:  # a fault of the base comes with every run, and is said once
        raise ConfigError(one_message(dict.fromkeys(faults), str(path)))
    return Experiment(title=str(raw.get("title") or path.stem), runs=found)


def _misshapen(path: Path, raw: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """What is wrong with the outermost tables."""
    faults = [
        f"{origins.get(key, path)}: `{key}` is not known here{nearest(key, _KEYS)}"
        for key in sorted(raw.keys() - _KEYS)
    ]
    runs, grid, base = raw.get("runs", []), raw.get("grid", {}), raw.get("base", {})
    if not isinstance(base, dict):
        faults.append(f"{origins.get('base', path)}: `base` must be a table")
    if not isinstance(runs, list) or not runs or not all(_is_named(run) for run in runs):
        where = origins.get("runs", path)
        faults.append(
            f"{where}: `runs` must be a list of tables, [[runs]], each with a printable name"
        )
    if not isinstance(raw.get("random", {}), dict):
        faults.append(f"{origins.get('random', path)}: `random` must be a table")
    values = flat(grid, lambda _: False).items() if isinstance(grid, dict) else [("grid", None)]
    for key, value in values:
        if not isinstance(value, list) or not value:
            where = origins.get(f"grid.{key}", origins.get("grid", path))
            faults.append(
                f"{where}: `grid` must be a table of lists that are not empty "
                f"(got {value!r} for `{key}`)"
            )
    return faults


def _is_named(run: Any) -> bool:
    name = run.get("name") if isinstance(run, dict) else None
    return isinstance(name, str) and bool(name.strip()) and name.isprintable()


def _points(
    raw: Mapping[str, Any], origins: Mapping[str, str], tasks: Sequence[str], faults: list[str]
) -> list[dict[str, tuple[Any, str]]]:
    """Every combination of the grid's values with every random point; what is wrong is added to `faults`."""

    def said(key: str, fault: str) -> str:
        return f"{origins.get(key) or origins.get(key.split('.')[0])}: `{key}` {fault}"

    grid = flat(raw.get("grid", {}), lambda _: False)
    if tasks:
        grid = {"task": list(tasks), **{k: v for k, v in grid.items() if k != "task"}}
    search = None
    drawn: list[dict[str, Any]] = [{}]
    if "random" in raw:
        search, wrong = read_random(raw["random"], said)
        faults += wrong
    if search is not None:
        try:
            drawn = search.points()
        except ConfigError as error:
            faults.append(f"{origins.get('random.trials')}: {error}")
    keys = [("grid", key) for key in grid]
    keys += [("random", draw.key) for draw in search.draws] if search else []
    faults += [said(f"{table}.{key}", fault) for table, key in keys for fault in _kept(table, key)]
    twice = {draw.key for draw in search.draws} & grid.keys() if search else set()
    faults += [said(f"random.{key}", "stands in [grid] as well") for key in sorted(twice)]
    size = math.prod(map(len, grid.values())) * len(drawn) * len(raw["runs"])
    if size > MOST:
        where = origins.get("grid") or origins.get("random")
        faults.append(
            f"{where}: `grid` and `random` make {size} configurations, more than {MOST}; drop values"
        )
    if faults:
        return []
    return [
        {
            **{
                key: (value, _origin(origins, f"grid.{key}"))
                for key, value in zip(grid, values, strict=True)
            },
            **{key: (value, _origin(origins, f"random.{key}")) for key, value in point.items()},
        }
        for values in itertools.product(*grid.values())
        for point in drawn
    ]


def _kept(table: str, key: str) -> Iterator[str]:
    """Why a setting cannot be varied."""
    if key == "seeds":
        yield f"cannot vary; give seeds = [0, 1, 2] in [base]: every run of [{table}] has each of them"


def _origin(origins: Mapping[str, str], key: str) -> str:
    return origins.get(key, "--task")


def _named(
    name: str, points: Sequence[Mapping[str, tuple[Any, str]]]
) -> Iterator[tuple[str, Mapping[str, tuple[Any, str]]]]:
    """A run's points, each with the name that says which."""
    for point in points:
        parts = [f"{key.rpartition('.')[2]}={value}" for key, (value, _) in point.items()]
        yield ", ".join([name, *parts]), point


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's own settings; those of a section one by one, so that each is named with its own line."""
    found: dict[str, Any] = {}
    for key, value in run.items():
        plain = isinstance(value, Mapping) and all(re.fullmatch(r"\w+", part) for part in value)
        if key in SECTIONS and plain:
            found |= {f"{key}.{part}": inner for part, inner in value.items()}
        elif key != "name":
            found[key] = value
    return found


def _run_lines(path: Path, count: int) -> list[dict[str, int]]:
    """For every [[runs]] the lines of its keys; empty where they cannot be told apart (an inline list of tables)."""
    lines = path.read_text("utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if _RUN.match(line)]
    if len(starts) != count:
        return [{} for _ in range(count)]
    found = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        own = key_lines("\n".join(lines[start:end]))
        prefix = "runs."
        found.append(
            {k.removeprefix(prefix): start + n for k, n in own.items() if k.startswith(prefix)}
        )
    return found


def _place(path: Path, lines: Mapping[str, int], key: str) -> str:
    """``file:line`` of a key or of the table around it; the file alone where no line is known."""
    line = lines.get(key) or lines.get(key.split(".")[0])
    return f"{path}:{line}" if line else str(path)
