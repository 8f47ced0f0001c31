"""Step 3 of 9, second half. In: plugins. Out: Registry: everything by name, with its provenance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from aang_core.errors import ConfigError, PluginError, did_you_mean, one_message
from aang_core.registry.discovery import (
    ALLOW_LIST,
    Discovered,
    FailedPlugin,
    Plugin,
    Provenance,
    allow_list,
    discover,
)
from aang_core.registry.records import (
    STAGES,
    BackboneKind,
    CallbackKind,
    DataSource,
    Logger,
    NamedObjective,
    Output,
    Primitive,
    Representation,
    Selector,
    Space,
    TaskKind,
    Transform,
    Weighting,
)

R_co = TypeVar("R_co", covariant=True)

_STAGE_HOOKS: Mapping[str, type] = {
    "aang_data_sources": DataSource,
    "aang_transforms": Transform,
    "aang_representations": Representation,
    "aang_outputs": Output,
}
_OTHER_HOOKS: Mapping[str, type] = {
    "aang_spaces": Space,
    "aang_backbones": BackboneKind,
    "aang_tasks": TaskKind,
    "aang_selectors": Selector,
    "aang_loggers": Logger,
    "aang_weightings": Weighting,
    "aang_callbacks": CallbackKind,
}
_HOOKS: Mapping[str, type] = {
    **_STAGE_HOOKS,
    **_OTHER_HOOKS,
    "aang_named_objectives": NamedObjective,
}


@attrs.frozen(kw_only=True)
class Registered(Generic[R_co]):
    """A record and who brought it."""

    record: R_co
    provenance: Provenance

    @property
    def plugin(self) -> str:
        """The plugin's name."""
        return self.provenance.plugin

    @property
    def distribution(self) -> str:
        """The distribution that holds the plugin."""
        return self.provenance.distribution

    @property
    def version(self) -> str:
        """That distribution's version."""
        return self.provenance.version

    @property
    def stage(self) -> str:
        """A primitive's stage; empty for any other record."""
        return getattr(self.record, "stage", "")


@attrs.frozen(kw_only=True, eq=False)
class Registry:
    """What the installed plugins offer. Mappings are by name, and in an order that no installer decides.

    :param primitives: of all stages, sorted by (stage, name).
    :param named: objective id → the literature's names for it, sorted.
    :param plugins: those that work; `failed`: those that could not be imported.
    """

    primitives: Mapping[str, Registered[Primitive]]
    spaces: Mapping[str, Registered[Space]]
    backbones: Mapping[str, Registered[BackboneKind]]
    tasks: Mapping[str, Registered[TaskKind]]
    selectors: Mapping[str, Registered[Selector]]
    loggers: Mapping[str, Registered[Logger]]
    weightings: Mapping[str, Registered[Weighting]]
    callbacks: Mapping[str, Registered[CallbackKind]] = attrs.field(factory=dict)
    named: Mapping[str, tuple[str, ...]]
    plugins: tuple[Plugin, ...]
    failed: tuple[FailedPlugin, ...]

    def primitive(self, name: str) -> Primitive:
        """The primitive of this name.

        :raises ConfigError: where there is none; says which name is close and which plugins failed.
        """
        if name not in self.primitives:
            raise ConfigError(self.unknown("primitive", name, self.primitives))
        return self.primitives[name].record

    def maker(self, name: str) -> str:
        """The name of a primitive in messages about its code, with its plugin."""
        entry = self.primitives[name]
        return f"the {entry.stage} {name!r} of plugin {entry.provenance}"

    def at_stage(self, stage: str) -> tuple[str, ...]:
        """The names of one stage's primitives, sorted."""
        return tuple(name for name, entry in self.primitives.items() if entry.stage == stage)

    def with_primitives(self, records: Iterable[Primitive], like: str) -> Registry:
        """This registry with further primitives, for one run; they have the provenance of the primitive `like`.

        :raises ConfigError: where a name is taken.
        """
        provenance = self.primitives[like].provenance
        more = [Registered(record=record, provenance=provenance) for record in records]
        faults: list[str] = []
        primitives = _by_name("primitive", [*self.primitives.values(), *more], faults)
        if faults:
            raise ConfigError(one_message(faults, "primitives of this run"))
        return attrs.evolve(self, primitives=primitives)

    def backbone_for(self, model: str) -> BackboneKind:
        """The kind of encoder that a model's name belongs to: the longest prefix wins, else the fallback.

        :raises ConfigError: where no installed kind takes the name, or two fallbacks do.
        """
        kinds = [entry.record for entry in self.backbones.values()]
        prefixes = [(len(p), kind) for kind in kinds for p in kind.prefixes if model.startswith(p)]
        if prefixes:
            return max(prefixes, key=lambda found: found[0])[1]
        fallbacks = [kind for kind in kinds if kind.fallback]
        if len(fallbacks) == 1:
            return fallbacks[0]
        known = sorted(p for kind in kinds for p in kind.prefixes)
        problem = (
            "is claimed by "
            + " and ".join(kind.name for kind in fallbacks)
            + "; choose with --plugins"
            if fallbacks
            else f"belongs to no installed backbone; known prefixes: {', '.join(known) or 'none'}"
        )
        causes = "".join(f"\n  note: {failure}" for failure in self.failed)
        raise ConfigError(f"the model {model!r} {problem}{causes}")

    def usual_model(self, task: str = "") -> str:
        """The encoder that a registered task suits, or the default of the kind that takes any name.

        :raises ConfigError: where no plugin brings a default.
        """
        if task in self.tasks and self.tasks[task].record.model:
            return self.tasks[task].record.model
        kinds = [entry.record for entry in self.backbones.values() if entry.record.default_model]
        if not kinds:
            raise ConfigError("no plugin brings a default encoder; name one with --model")
        return kinds[0].default_model

    def objective_named(self, text: str) -> str:
        """The id for a name from the literature; an id stays as it is.

        :raises ConfigError: where several objectives have the name.
        """
        ids = [each for each, names in self.named.items() if text in names]
        if len(ids) > 1:
            raise ConfigError(
                f"{text!r} is the name of several objectives: {', '.join(ids)}; give one id"
            )
        return ids[0] if ids else text

    def unknown(self, kind: str, name: str, known: Iterable[str]) -> str:
        """The message about a name that nothing has, with the plugins that might have brought it."""
        see = f" (see `aang list-{kind}s`)" if kind in ("primitive", "space", "selector") else ""
        message = f"unknown {kind} {name!r}{did_you_mean(name, known)}{see}"
        causes = "".join(f"\n  note: {failure}" for failure in self.failed)
        return message + causes


def load_registry(only: frozenset[str] | None = None) -> Registry:
    """Load the installed plugins.

    :param only: names of the plugins to load; None for those that the environment variable ``AANG_PLUGINS``
        lists, or all where it lists none.
    :raises PluginError: for clashes, misspelt hooks, and hooks that fail or return what they may not.
    """
    return collect(discover(allow_list(os.environ.get(ALLOW_LIST, "")) if only is None else only))


def registry_named(plugins: Any) -> Registry:
    """The registry for a configuration's `plugins`. Anything but a list of names is left to its checks."""
    named = isinstance(plugins, list | tuple) and all(isinstance(name, str) for name in plugins)
    return load_registry(frozenset(plugins) if named and plugins else None)


def collect(discovered: Discovered) -> Registry:
    """Call every hook of every discovered plugin and index what comes back.

    :raises PluginError: as in `load_registry`.
    """
    faults: list[str] = []
    found = {hook: list(_records(discovered, hook, kind, faults)) for hook, kind in _HOOKS.items()}
    # one table for all stages: a name means one thing wherever it is written
    primitives = [entry for hook in _STAGE_HOOKS for entry in found[hook]]
    by_name = _by_name("primitive", primitives, faults)
    tables = {
        hook: _by_name(kind.__name__, found[hook], faults) for hook, kind in _OTHER_HOOKS.items()
    }
    if faults:
        raise PluginError(one_message(faults, "installed plugins"))
    return Registry(
        primitives=by_name,
        spaces=tables["aang_spaces"],
        backbones=tables["aang_backbones"],
        tasks=tables["aang_tasks"],
        selectors=tables["aang_selectors"],
        loggers=tables["aang_loggers"],
        weightings=tables["aang_weightings"],
        callbacks=tables["aang_callbacks"],
        named=_names(found["aang_named_objectives"]),
        plugins=discovered.plugins,
        failed=discovered.failed,
    )


def _records(
    discovered: Discovered, hook: str, kind: type, faults: list[str]
) -> Iterable[Registered[Any]]:
    """What each plugin's implementation of one hook returns, with its provenance; faults are collected."""
    everyone = [plugin.module for plugin in discovered.plugins]
    for plugin in discovered.plugins:
        if hook not in plugin.hooks:
            continue
        others = [module for module in everyone if module is not plugin.module]
        caller = discovered.manager.subset_hook_caller(hook, others)
        for record in _called(caller, hook, plugin, faults):
            if isinstance(record, kind):
                yield Registered(record=record, provenance=plugin.provenance)
            else:
                faults.append(
                    f"plugin {plugin.provenance}: {hook} returned {record!r}; "
                    f"expected records of the class {kind.__name__}"
                )


def _called(
    caller: Callable[[], list[Any]], hook: str, plugin: Plugin, faults: list[str]
) -> list[Any]:
    """The records of one implementation, or a fault that names plugin and hook."""
    where = f"plugin {plugin.provenance}: {hook}"
    try:
        # pluggy leaves out implementations that return None
        answers = [list(answer) for answer in caller()]
    except Exception as cause:  # a stranger's code: name whose it was, with the other faults
        faults.append(f"{where} failed: {type(cause).__name__}: {cause}")
        return []
    if not answers:
        faults.append(f"{where} returned None; expected an iterable of records, which may be empty")
        return []
    return answers[0]


def _by_name(
    what: str, entries: list[Registered[Any]], faults: list[str]
) -> dict[str, Registered[Any]]:
    """Name → entry, sorted by (stage, name); a name that two records claim is a fault."""
    table: dict[str, Registered[Any]] = {}
    for entry in entries:
        name = entry.record.name
        if name in table:
            owners = " and ".join(_claim(claim) for claim in (table[name], entry))
            faults.append(f"the {what} name {name!r} is claimed by {owners}")
        table.setdefault(name, entry)
    stages = {stage: index for index, stage in enumerate(STAGES)}
    order = sorted(table.values(), key=lambda e: (stages.get(e.stage, 0), e.record.name))
    return {entry.record.name: entry for entry in order}


def _claim(entry: Registered[Any]) -> str:
    where = f"plugin {entry.provenance}"
    return f"{where} as {entry.stage}" if entry.stage else where


def _names(entries: list[Registered[NamedObjective]]) -> dict[str, tuple[str, ...]]:
    names: dict[str, set[str]] = {}
    for entry in entries:
        names.setdefault(entry.record.objective, set()).add(entry.record.name)
    return {objective: tuple(sorted(found)) for objective, found in sorted(names.items())}
