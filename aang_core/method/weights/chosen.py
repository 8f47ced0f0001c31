"""Which weighting rule a run asks for, and whether its other settings go with it."""

from __future__ import annotations

import attrs

from aang_core.config.settings import AUTO, META_METHODS, Meta, RunConfig
from aang_core.errors import ConfigError
from aang_core.registry.records import Weighting
from aang_core.registry.registry import Registered, Registry

_LEARNING = ("control", "factored", "logit_step", "factor_reduce", "factor_lr", "end_task_lr")
"""Settings of ``meta`` that say how weights learn, and nothing else."""


def chosen_weighting(config: RunConfig, registry: Registry) -> Registered[Weighting] | None:
    """The rule that a run names; None for that of its method: equal weights for ``aang``, Algorithm 1 for ``tartan``.

    :raises ConfigError: where there is none of that name, or where a setting of learning can do nothing.
    """
    if config.meta.control != "none" and config.method not in META_METHODS:
        raise ConfigError(
            f'meta.control = "{config.meta.control}" shuffles what is learned, and the method {config.method!r} '
            "learns no weights; choose one that does (`--method aang --rule aang`, or `--method tartan`)"
        )
    name = config.meta.rule
    if name != AUTO and name not in registry.weightings:
        raise ConfigError(registry.unknown("weighting", name, registry.weightings))
    if config.method in META_METHODS:
        if name == "equal" or (name, config.method) == (AUTO, "aang"):
            _check_equal(config.meta)
        elif name != AUTO and registry.weightings[name].record.forks:
            _check_fork(config)
    return None if name == AUTO else registry.weightings[name]


def _check_equal(meta: Meta) -> None:
    """:raises ConfigError: names every setting of learning, where weights stay equal."""
    given, plain = attrs.asdict(meta), attrs.asdict(Meta())
    idle = [f"meta.{name} = {given[name]}" for name in _LEARNING if given[name] != plain[name]]
    if idle:
        raise ConfigError(
            f"{' and '.join(idle)} can do nothing where weights stay equal, as they do by default; choose a rule that "
            "learns (`--rule aang` is Algorithm 1, `aang list-weightings` shows all), or leave it out"
        )


def _check_fork(config: RunConfig) -> None:
    """:raises ConfigError: names every setting that makes no sense where each stretch is trained twice and merged."""
    if config.training.refit == "all":
        raise ConfigError(
            f'meta.rule = "{config.meta.rule}" merges as dev prefers, and training.refit = "all" would train on dev; '
            "choose another rule, or set training.refit to none"
        )
    idle = {
        f'meta.control = "{config.meta.control}"': config.meta.control != "none",
        f"meta.dev_folds = {config.meta.dev_folds}": config.meta.dev_folds > 0,
    }
    if named := " and ".join(setting for setting, on in idle.items() if on):
        raise ConfigError(
            f'meta.rule = "{config.meta.rule}" forks and merges: it takes no dev gradients and learns no weights of '
            f"objectives, so {named} can do nothing; leave it out"
        )
