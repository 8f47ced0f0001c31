"""A sweep's file. In: a TOML specification of an experiment. Out: the name and `RunConfig` of every run in it.

::

    title = "…"
    [base]                          # what all runs share: any settings of a configuration
    task = "my_task"
    training = { max_steps = 600 }
    [[runs]]                        # one or more, each over the base
    name = "aang"
    space = "td"
    meta = { rule = "aang" }
    [grid]                          # optional: every combination, for every run
    "meta.factor_lr" = [1.0, 0.1]
    [random]                        # optional: points drawn at random, the same for every run
    trials = 20                     # points, each different
    seed = 0
    "training.lr" = { log-uniform = [1e-5, 1e-3] }
    "training.warmup" = { uniform = [0.0, 0.2] }
    "training.auxiliary_rows" = { int = [16, 64] }       # both ends included
    "meta.objectives_per_step" = { choice = [6, 12, "all"] }

Every drawn setting has its own stream of random numbers, derived from the seed and the setting's name. So more trials
keep the first ones, and a further setting does not change the others. `sweep` runs the experiment.
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
from aang_core.config.schema import (
    Anything,
    Fault,
    Integer,
    ListOf,
    Number,
    Rule,
    Scalar,
    Table,
    TableOf,
    Text,
    faults_of,
    got,
    origin_of,
    said,
)
from aang_core.config.settings import SECTIONS, RunConfig
from aang_core.errors import ConfigError, faults_in, one_message
from aang_core.registry.registry import registry_named
from aang_core.registry.spaces import suggestions

Flags = Mapping[str, tuple[Any, str]]
"""Dotted key → (value, where it was set)."""


@attrs.frozen(kw_only=True)
class Experiment:
    """:param title: its name, for people; by default the file's.
    :param runs: the configurations by name, in the order of the file.
    """

    title: str
    runs: Mapping[str, RunConfig]


def load_experiment(
    path: Path, *, tasks: Sequence[str] = (), flags: Flags | None = None, **over: Any
) -> Experiment:
    """A specification's runs; the names of those of a grid end with their settings (``aang, factor_lr=0.1``).

    :param tasks: run everything on each of these instead of the file's own.
    :param flags: settings over those of the file, each with its flag.
    :param over: the same as keywords, such as ``task="elsewhere/"``.
    :raises ConfigError: if the file cannot be read, or with all of its faults.
    """
    raw, origins = read_config(path, "the experiment")
    given = {**(flags or {}), **{key: (value, f"{key}=") for key, value in over.items()}}
    if len(tasks) == 1:
        given["task"] = (tasks[0], "--task")
    for table in ("grid", "random"):
        if isinstance(raw.get(table), dict):
            raw[table] = flat(raw[table], is_way if table == "random" else lambda _: False)
    faults = faults_of(_FORM, raw, origins)
    if "task" in given and isinstance(raw.get("grid"), dict):  # in place of the file's tasks
        raw["grid"].pop("task", None)
    points = [] if faults else _points(raw, origins, tasks if len(tasks) > 1 else (), faults)
    if faults:
        raise ConfigError(one_message(faults, str(path)))
    base = raw.get("base", {})
    base_origins = {k.removeprefix("base."): v for k, v in origins.items() if k.startswith("base.")}
    found: dict[str, RunConfig] = {}
    for place, run in enumerate(raw["runs"]):
        own = {
            key: (value, f"{origin_of(('runs', place, *key.split('.')), origins)} ({run['name']})")
            for key, value in _settings(run).items()
        }
        for name, point in _named(run["name"], points):
            try:
                if name in found:
                    raise ConfigError(f"{path}: two runs are named {name!r}")
                merged = overlaid(base, base_origins, {**own, **point, **given})
                suggest = suggestions(registry_named(merged[0].get("plugins")))
                found[name] = RunConfig.from_mapping(*merged, suggest)
            except ConfigError as error:
                faults += faults_in(str(error))
    faults += [f"{path}: {name!r} is no printable name" for name in found if not name.isprintable()]
    if faults:  # a fault of the base recurs in every run; report it once
        raise ConfigError(one_message(dict.fromkeys(faults), str(path)))
    return Experiment(title=str(raw.get("title") or path.stem), runs=found)


def _points(
    raw: Mapping[str, Any], origins: Mapping[str, str], tasks: Sequence[str], faults: list[str]
) -> list[dict[str, tuple[Any, str]]]:
    """Every combination of the grid's values with every random point. Adds what is wrong to `faults`."""
    grid = raw.get("grid", {})
    if tasks:
        grid = {"task": list(tasks), **{k: v for k, v in grid.items() if k != "task"}}
    drawn: list[dict[str, Any]] = [{}]
    keys = [("grid", key) for key in grid]
    if "random" in raw:
        search = search_of(raw["random"])
        keys += [("random", draw.key) for draw in search.draws]
        if not search.draws:
            faults.append(said(("random",), "must draw at least one setting", origins))
        else:
            try:
                drawn = search.points()
            except ConfigError as error:
                faults.append(f"{origins.get('random.trials')}: {error}")
    faults += _misplaced(keys, origins)
    size = math.prod(map(len, grid.values())) * len(drawn) * len(raw["runs"])
    if size > MOST:
        where = origins.get("grid") or origins.get("random")
        faults.append(
            f"{where}: `grid` and `random` make {size} configurations, more than {MOST}; drop values"
        )
    if faults:
        return []
    places = {key: origins.get(f"{table}.{key}", "--task") for table, key in keys}
    return [
        {
            key: (value, places[key])
            for key, value in (*zip(grid, values, strict=True), *point.items())
        }
        for values in itertools.product(*grid.values())
        for point in drawn
    ]


def _misplaced(keys: Sequence[tuple[str, str]], origins: Mapping[str, str]) -> Iterator[str]:
    """Settings that cannot vary, or vary in two tables.

    :param keys: the table and the setting of each.
    """
    for table, key in keys:
        if key == "seeds":
            why = "cannot vary; give seeds = [0, 1, 2] in [base]"
            fault = f"{why}: every run of [{table}] has each of them"
            yield said((table, key), fault, origins)
        if table == "random" and ("grid", key) in keys:
            yield said((table, key), "stands in [grid] as well", origins)


def _named(
    name: str, points: Sequence[Mapping[str, tuple[Any, str]]]
) -> Iterator[tuple[str, Mapping[str, tuple[Any, str]]]]:
    """A run's points, each with a name that tells it from the others."""
    for point in points:
        parts = [f"{key.rpartition('.')[2]}={value}" for key, (value, _) in point.items()]
        yield ", ".join([name, *parts]), point


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's own settings; those of a section one by one, so that faults name their lines."""
    found: dict[str, Any] = {}
    for key, value in run.items():
        plain = isinstance(value, Mapping) and all(re.fullmatch(r"\w+", part) for part in value)
        if key in SECTIONS and plain:
            found |= {f"{key}.{part}": inner for part, inner in value.items()}
        elif key != "name":
            found[key] = value
    return found


# --- random search

DIGITS = 4
"""Significant digits of a drawn number, so that a configuration's name tells its value completely."""

MOST = 10_000
"""Points of one search, and configurations of one file. More are taken for a slip: a grid multiplies fast."""

_TRIES = 30  # draws for each point before a search gives up finding a new one


KINDS = ("choice", "uniform", "log-uniform", "int")


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
        low, high = self.values
        if self.kind == "int":
            return int(random.integers(low, high, endpoint=True))
        if self.kind == "uniform":
            drawn = random.uniform(low, high)
        else:
            drawn = math.exp(random.uniform(math.log(low), math.log(high)))
        return min(max(float(f"{drawn:.{DIGITS}g}"), float(low)), float(high))


@attrs.frozen(kw_only=True)
class RandomSearch:
    """:param trials: how many points; :param seed: of their random numbers."""

    trials: int
    seed: int
    draws: tuple[Draw, ...]

    def points(self) -> list[dict[str, Any]]:
        """Distinct points.

        :raises ConfigError: if there are fewer than `trials`.
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
    """Nested tables as dotted keys, down to values that are an end: ``a.b = 1`` and ``"a.b" = 1`` are the same.

    :param ends: of ``[random]``, `is_way`.
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value and not ends(value):
            found |= flat(value, ends, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def search_of(table: Mapping[str, Any]) -> RandomSearch:
    """The search of a flat table that obeys `SEARCH`."""
    draws = tuple(
        Draw(key=key, kind=kind, values=tuple(values))
        for key, way in sorted(table.items())
        if isinstance(way, Mapping)
        for kind, values in way.items()
    )
    return RandomSearch(trials=table["trials"], seed=table.get("seed", 0), draws=draws)


def is_way(value: Mapping[str, Any]) -> bool:
    """Whether a table says how to draw, even wrongly, rather than holding settings."""
    return any(key in KINDS for key in value) or all(
        isinstance(part, list) for part in value.values()
    )


@attrs.frozen
class _Range(Scalar):
    """The two ends of a range, the smaller first."""

    end: Rule
    ends: str

    @property
    def wanted(self) -> str:
        return f"two {self.ends}, the smaller first"

    def holds(self, value: Any) -> bool:
        whole = isinstance(value, list) and len(value) == 2
        return whole and not any(any(self.end.faults(v)) for v in value) and value[0] < value[1]


_WAYS: Mapping[str, Rule] = {
    "choice": ListOf(Anything(), 1, "value", unique=False),
    "uniform": _Range(Number(), "numbers"),
    "log-uniform": _Range(Number(0, without_least=True), "numbers above 0"),
    "int": _Range(Integer(), "whole numbers"),
}


class _Way(Table):
    """``{ kind = [values] }``: one way to draw."""

    def faults(self, value: Any) -> Iterator[Fault]:
        if isinstance(value, Mapping) and len(value) == 1:
            yield from super().faults(value)
        else:
            example = "{ log-uniform = [1e-5, 1e-3] }"
            yield (), f"must be a table of one way to draw, such as {example} (got {got(value)})"


SEARCH = Table({"trials": Integer(1, MOST), "seed": Integer(0)}, ("trials",), _Way(_WAYS))
"""What the flat table of a search may hold."""

_RUN = Table({"name": Text(printable=True)}, required=("name",), others=Anything())
_FORM = Table(
    {
        "title": Text(empty=True),
        "paper": Anything(),
        "base": TableOf(Anything()),
        "runs": ListOf(_RUN, 1, "[[runs]] table", unique=False),
        "grid": TableOf(ListOf(Anything(), 1, "value", unique=False)),
        "random": SEARCH,
    },
    required=("runs",),
)
