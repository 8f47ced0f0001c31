"""A sweep's file. In: a TOML specification of an experiment. Out: the name and `RunConfig` of every run in it.

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
    trials = 20                     # points, each different
    seed = 0
    "training.lr" = { log-uniform = [1e-5, 1e-3] }
    "training.warmup" = { uniform = [0.0, 0.2] }
    "training.auxiliary_rows" = { int = [16, 64] }       # both ends included
    "meta.objectives_per_step" = { choice = [6, 12, "all"] }

Every setting that is drawn has its own stream of random numbers, which follows from the seed and the setting's name:
more trials keep the first ones, and a further setting does not move the others. `aang_core.study.sweep` carries it out.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from aang_core.config.file import overlaid, read_config
from aang_core.config.settings import SECTIONS, RunConfig
from aang_core.errors import ConfigError, did_you_mean, faults_in, nearest, one_message

_KEYS = frozenset({"title", "paper", "base", "runs", "grid", "random"})

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
    if "task" in given and isinstance(raw.get("grid"), dict):  # in place of the file's tasks
        raw["grid"].pop("task", None)
    points = [] if faults else _points(raw, origins, tasks if len(tasks) > 1 else (), faults)
    if faults:
        raise ConfigError(one_message(faults, str(path)))
    base = raw.get("base", {})
    base_origins = {k.removeprefix("base."): v for k, v in origins.items() if k.startswith("base.")}
    found: dict[str, RunConfig] = {}
    for number, run in enumerate(raw["runs"]):
        own = {
            key: (value, f"{_place(origins, f'runs[{number}]', key)} ({run['name']})")
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


def _place(origins: Mapping[str, str], run: str, key: str) -> str:
    """``file:line`` of a run's key or of the table around it; the file alone where no line is known."""
    table = key.split(".")[0]
    return origins.get(f"{run}.{key}") or origins.get(f"{run}.{table}") or origins[""]


# --- random search

DIGITS = 4
"""Significant digits of a drawn number, so that a configuration's name tells its value completely."""

MOST = 10_000
"""Points of one search, and configurations of one file: more are taken for a slip, since a grid multiplies fast."""

_TRIES = 30  # draws a point, before a search gives up finding one that it has not had yet


def _uniform(low: float, high: float, random: np.random.Generator) -> float:
    return _rounded(random.uniform(low, high), low, high)


def _log_uniform(low: float, high: float, random: np.random.Generator) -> float:
    return _rounded(math.exp(random.uniform(math.log(low), math.log(high))), low, high)


def _int(low: int, high: int, random: np.random.Generator) -> int:
    return int(random.integers(low, high, endpoint=True))


def _rounded(value: float, low: float, high: float) -> float:
    return min(max(float(f"{value:.{DIGITS}g}"), float(low)), float(high))


_RANGES: Mapping[str, Callable[[Any, Any, np.random.Generator], Any]] = {
    "uniform": _uniform,
    "log-uniform": _log_uniform,
    "int": _int,
}
KINDS = ("choice", *_RANGES)


@attrs.frozen(kw_only=True)
class Draw:
    """How one setting is drawn.

    :param key: the setting, dotted.
    :param kind: one of `KINDS`.
    :param values: the choices, or the two ends of a range.
    """

    key: str
    kind: str
    values: tuple[Any, ...]

    def value(self, random: np.random.Generator) -> Any:
        """The next value."""
        if self.kind == "choice":
            return self.values[int(random.integers(len(self.values)))]
        return _RANGES[self.kind](self.values[0], self.values[1], random)


@attrs.frozen(kw_only=True)
class RandomSearch:
    """:param trials: how many points; :param seed: of their random numbers."""

    trials: int
    seed: int
    draws: tuple[Draw, ...]

    def points(self) -> list[dict[str, Any]]:
        """The points, no two alike.

        :raises ConfigError: where there are fewer different ones than `trials`.
        """
        streams = {
            draw.key: np.random.default_rng([self.seed, zlib.crc32(draw.key.encode())])
            for draw in self.draws
        }
        found: dict[str, dict[str, Any]] = {}
        for _ in range(_TRIES * self.trials):
            point = {draw.key: draw.value(streams[draw.key]) for draw in self.draws}
            found.setdefault(repr(point), point)
            if len(found) == self.trials:
                return list(found.values())
        raise ConfigError(
            f"`random.trials` asks for {self.trials} different points, but only {len(found)} could be drawn; "
            "lower it, or write the values as lists of [grid]"
        )


def flat(table: Mapping[str, Any], ends: Callable[[Any], bool], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys, down to the values that are an end: ``a.b = 1`` and ``"a.b" = 1`` are the same."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value and not ends(value):
            found |= flat(value, ends, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def read_random(
    table: Mapping[str, Any], said: Callable[[str, str], str]
) -> tuple[RandomSearch | None, list[str]]:
    """A random search, or what is wrong with it.

    :param said: (key, fault) → the fault with the place where the key was written.
    """
    faults = []
    trials, seed = table.get("trials"), table.get("seed", 0)
    if type(trials) is not int or not 1 <= trials <= MOST:
        got = f"(got {trials!r})" if "trials" in table else "(it is missing)"
        faults.append(said("random.trials", f"must be a whole number from 1 to {MOST} {got}"))
    if type(seed) is not int or seed < 0:
        faults.append(said("random.seed", f"must be a whole number of at least 0 (got {seed!r})"))
    rest = {key: value for key, value in table.items() if key not in ("trials", "seed")}
    ways = flat(rest, _is_way)
    if not ways:
        faults.append(said("random", "must draw at least one setting"))
    for key, way in ways.items():
        faults += [said(f"random.{key}", fault) for fault in _faults(way)]
    if faults or type(trials) is not int:
        return None, faults
    draws = tuple(_draw(key, way) for key, way in sorted(ways.items()))
    return RandomSearch(trials=trials, seed=seed, draws=draws), []


def _is_way(value: Mapping[str, Any]) -> bool:
    """Whether a table says how to draw, however wrongly, and is not one of settings."""
    return any(key in KINDS for key in value) or all(
        isinstance(part, list) for part in value.values()
    )


def _draw(key: str, way: Mapping[str, list[Any]]) -> Draw:
    ((kind, values),) = way.items()
    return Draw(key=key, kind=kind, values=tuple(values))


def _faults(way: Any) -> Iterator[str]:
    """What is wrong with ``{ kind = [values] }``."""
    if not isinstance(way, Mapping) or len(way) != 1:
        example = "{ log-uniform = [1e-5, 1e-3] }"
        yield f"must be a table of one way to draw, such as {example} (got {way!r})"
        return
    ((kind, values),) = way.items()
    if kind not in KINDS:
        yield f"has no way to draw called {kind!r}{did_you_mean(kind, KINDS)}"
    elif kind == "choice":
        if not isinstance(values, list) or not values:
            yield f"must choose from a list that is not empty (got {values!r})"
    elif not _is_range(kind, values):
        wanted = {
            "uniform": "two numbers",
            "log-uniform": "two numbers above 0",
            "int": "two whole numbers",
        }[kind]
        yield f"must be {kind} between {wanted}, the smaller first (got {values!r})"


def _is_range(kind: str, values: Any) -> bool:
    numbers = (int,) if kind == "int" else (int, float)
    if not isinstance(values, list) or len(values) != 2:
        return False
    if not all(type(value) in numbers and math.isfinite(value) for value in values):
        return False
    low, high = values
    return low < high and (kind != "log-uniform" or low > 0)
