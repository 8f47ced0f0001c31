"""Step 3 of 9, first half. In: the installed distributions. Out: imported plugins, and those that failed.

pluggy's own entry-point loader silently drops a second distribution with a taken name, and one plugin that fails to
import stops all others. So we search for plugins ourselves and use pluggy only to call them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs
import pluggy

from aang_core.errors import PluginError, did_you_mean, one_message
from aang_core.registry import hookspecs

GROUP = "aang"
ALLOW_LIST = "AANG_PLUGINS"
HOOKS = tuple(sorted(name for name in vars(hookspecs) if name.startswith("aang_")))


@attrs.frozen(kw_only=True, order=True)
class Provenance:
    """Who brought something: the plugin's name, its distribution and that one's version."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.plugin!r} ({self.distribution} {self.version})"


@attrs.frozen(kw_only=True)
class FailedPlugin:
    """A plugin whose module could not be imported. Commands that do not need it go on."""

    provenance: Provenance
    cause: str

    def __str__(self) -> str:
        return f"plugin {self.provenance} failed to import: {self.cause}"


@attrs.frozen(kw_only=True, eq=False)
class Plugin:
    """An imported plugin and the hooks that it implements, sorted."""

    provenance: Provenance
    module: Any
    hooks: tuple[str, ...]


@attrs.frozen(kw_only=True, eq=False)
class Discovered:
    """Everything that discovery found, sorted by plugin name."""

    manager: pluggy.PluginManager
    plugins: tuple[Plugin, ...]
    failed: tuple[FailedPlugin, ...]


def allow_list(text: str) -> frozenset[str] | None:
    """``"a, b"`` → {a, b}; None, which allows all, where nothing is listed."""
    return frozenset(name.strip() for name in text.split(",") if name.strip()) or None


def discover(
    only: frozenset[str] | None = None, found: Iterable[EntryPoint] | None = None
) -> Discovered:
    """Import the plugins of the entry-point group ``aang`` and check their hooks.

    :param only: names of the plugins to load; None for all. Others are not even imported.
    :param found: the entry points to consider instead of the installed ones.
    :raises PluginError: where two distributions claim one name, a listed plugin is not installed, a hook is
        misspelt, lacks its marker or takes unknown arguments.
    """
    points = _unique(entry_points(group=GROUP) if found is None else found)
    _check_listed(only, points)
    chosen = {name: dists for name, dists in points.items() if only is None or name in only}
    _check_claims(chosen)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    plugins: list[Plugin] = []
    failed: list[FailedPlugin] = []
    for name in sorted(chosen):
        (point,) = chosen[name].values()
        origin = _provenance(point)
        try:
            module = point.load()
        # whatever a stranger's module raises must not stop the others
        except (Exception, SystemExit) as cause:
            failed.append(FailedPlugin(provenance=origin, cause=f"{type(cause).__name__}: {cause}"))
            continue
        plugins.append(_registered(manager, module, origin))
    _check_hooks(manager, plugins)
    return Discovered(manager=manager, plugins=tuple(plugins), failed=tuple(failed))


def _provenance(point: EntryPoint) -> Provenance:
    """Where an entry point comes from; "unknown" for one made without a distribution."""
    if point.dist is None:
        return Provenance(plugin=point.name, distribution="unknown", version="unknown")
    name = point.dist.metadata["Name"] or "unknown"
    return Provenance(plugin=point.name, distribution=name, version=point.dist.version)


def _unique(found: Iterable[EntryPoint]) -> dict[str, dict[str, EntryPoint]]:
    """Name → normalised distribution → entry point.

    One distribution may be seen twice, as an editable install beside a built one; the first on the path is
    what Python itself imports.
    """
    points: dict[str, dict[str, EntryPoint]] = {}
    for point in found:
        key = re.sub(r"[-_.]+", "-", _provenance(point).distribution).lower()
        points.setdefault(point.name, {}).setdefault(key, point)
    return points


def _check_listed(only: frozenset[str] | None, points: Mapping[str, object]) -> None:
    faults = [
        f"plugin {name!r} is listed by --plugins or {ALLOW_LIST} but is not installed"
        + did_you_mean(name, points)
        for name in sorted((only or frozenset()) - points.keys())
    ]
    if faults:
        raise PluginError(one_message(faults, "the list of plugins"))


def _check_claims(points: Mapping[str, Mapping[str, EntryPoint]]) -> None:
    faults = []
    for name, claims in sorted(points.items()):
        if len(claims) > 1:
            origins = sorted(_provenance(point) for point in claims.values())
            owners = " and ".join(f"{o.distribution} {o.version}" for o in origins)
            faults.append(f"the plugin name {name!r} is claimed by {owners}; uninstall one of them")
    if faults:
        raise PluginError(one_message(faults, "installed plugins"))


def _registered(manager: pluggy.PluginManager, module: Any, origin: Provenance) -> Plugin:
    """Hand one module to pluggy.

    :raises PluginError: where the module is already another plugin's, or a hook's arguments do not fit.
    """
    try:
        manager.register(module, name=origin.plugin)
    except (pluggy.PluginValidationError, ValueError) as cause:
        raise PluginError(f"plugin {origin} cannot be registered: {cause}") from cause
    callers = manager.get_hookcallers(module) or []
    hooks = tuple(sorted(caller.name for caller in callers))
    return Plugin(provenance=origin, module=module, hooks=hooks)


def _check_hooks(manager: pluggy.PluginManager, plugins: Iterable[Plugin]) -> None:
    """Every implemented hook exists, and everything named like a hook is marked as one."""
    faults = []
    for plugin in plugins:
        origin = plugin.provenance
        for hook in plugin.hooks:
            if hook not in HOOKS:
                faults.append(
                    f"plugin {origin} implements the unknown hook {hook!r}"
                    + did_you_mean(hook, HOOKS)
                )
        for hook in HOOKS:
            named = callable(getattr(plugin.module, hook, None))
            if named and manager.parse_hookimpl_opts(plugin.module, hook) is None:
                faults.append(
                    f"plugin {origin} defines {hook!r} without the marker; put @hookimpl above it"
                )
    if faults:
        raise PluginError(one_message(faults, "hooks of plugins"))
