"""The reference page of the Python interface: the public names, for mkdocstrings to fill in."""

from __future__ import annotations

from collections.abc import Mapping

from aang_core import _HOMES

GROUPS: Mapping[str, tuple[str, ...]] = {
    "A whole run": (
        "study.run",
        "study.estimator",
        "config.settings",
        "train.callbacks",
        "rundir.report",
        "errors",
    ),
    "Plugins, spaces and objectives": (
        "registry.registry",
        "registry.spaces",
        "registry.legality",
        "registry.hookspecs",
        "registry.records",
    ),
    "Data": ("batch.protocols", "batch.rows", "batch.stream", "data.task"),
    "The search": ("method.gradient.metagrad", "method.weights.weighting"),
}
"""Heading → the modules whose public names stand under it."""


def page() -> str:
    """One directive a public name, in groups; a module that no group lists comes last."""
    lines = [
        "# Python",
        "",
        "Generated from the docstrings. Everything here is `aang_core.NAME`: `import aang_core as aang`, and",
        "begin with `aang.run`. What a name needs is imported when it is first used. `hookimpl` is pluggy's",
        "marker for the functions of a plugin's hooks module.",
    ]
    listed = {module for modules in GROUPS.values() for module in modules}
    rest = tuple(module for module in _HOMES if module not in listed)
    groups = {**GROUPS, **({"More": rest} if rest else {})}
    for heading, modules in groups.items():
        lines += ["", f"## {heading}"]
        for module in modules:
            names = [name for name in _HOMES[module] if name != "hookimpl"]
            lines += [f"\n::: aang_core.{module}.{name}" for name in names]
    lines += ["", "## For tests", "", "::: aang_core.testing"]
    return "\n".join(lines) + "\n"
