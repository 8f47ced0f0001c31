"""Random search. In: the table ``[random]`` of an experiment. Out: its points, the same ones for the same seed.

::

    [random]
    trials = 20                                           # points, each different
    seed = 0
    "training.lr" = { log-uniform = [1e-5, 1e-3] }
    "training.warmup" = { uniform = [0.0, 0.2] }
    "training.auxiliary_rows" = { int = [16, 64] }        # both ends included
    "meta.objectives_per_step" = { choice = [6, 12, "all"] }

Every setting has its own stream of random numbers, which follows from the seed and the setting's name: more trials keep
the first ones, and a further setting does not move the others.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np

from aang_core.errors import ConfigError, did_you_mean

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
