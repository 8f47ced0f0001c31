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
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aang_core.config import RunConfig
from aang_core.config_file import overlaid, read_config
from aang_core.errors import ConfigError, one_message

_KEYS = frozenset({"title", "paper", "base", "runs", "grid"})


def read_experiment(path: Path, **over: Any) -> dict[str, RunConfig]:
    """The runs of a specification, by name; in a grid each name ends with its settings (``aang, factor_lr=0.1``).

    :param over: settings over those of the file, such as ``task="elsewhere/"``.
    :raises ConfigError: where the file cannot be read, or with every fault of it.
    """
    raw, _ = read_config(path)
    faults = [f"`{key}` is not known here" for key in sorted(raw.keys() - _KEYS)]
    runs, grid, base = raw.get("runs", []), raw.get("grid", {}), raw.get("base", {})
    if not isinstance(base, dict):
        faults.append("`base` must be a table")
    if not isinstance(runs, list) or not runs or not all(_is_named(run) for run in runs):
        faults.append("`runs` must be a list of tables, [[runs]], each with a name")
    if not isinstance(grid, dict) or not all(isinstance(v, list) and v for v in grid.values()):
        faults.append("`grid` must be a table of lists that are not empty")
    if faults:
        raise ConfigError(one_message([f"{path}: {fault}" for fault in faults], str(path)))
    found: dict[str, RunConfig] = {}
    for run in runs:
        for name, point in _points(run["name"], grid):
            own = {key: value for key, value in run.items() if key != "name"}
            settings = {**own, **point, **over}
            if name in found:
                raise ConfigError(f"{path}: two runs are named {name!r}")
            found[name] = _config(path, name, base, settings)
    return found


def _is_named(run: Any) -> bool:
    return isinstance(run, dict) and isinstance(run.get("name"), str) and bool(run["name"])


def _points(name: str, grid: Mapping[str, list[Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Every combination of a grid's values, with the name that says which."""
    points = []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        parts = [f"{key.rpartition('.')[2]}={value}" for key, value in point.items()]
        points.append((", ".join([name, *parts]), point))
    return points


def _config(
    path: Path, name: str, base: Mapping[str, Any], settings: Mapping[str, Any]
) -> RunConfig:
    origin = f"{path} ({name})"
    merged, origins = overlaid(base, {}, {key: (value, origin) for key, value in settings.items()})
    return RunConfig.from_mapping(merged, {**dict.fromkeys(base, origin), **origins})
