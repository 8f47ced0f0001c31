"""Binding data sources to a task, and the options of primitives."""

from __future__ import annotations

import attrs
import pytest
from _plugins import data, registry_of, transform

from aang_core.batch.binding import bind_sources
from aang_core.batch.protocols import Binding
from aang_core.config.settings import RunConfig
from aang_core.data.task import Task, registered_tasks
from aang_core.errors import ConfigError, PluginError, TaskError
from aang_core.registry.options import check_options, settings_of
from aang_core.registry.records import TaskKind
from aang_core.registry.registry import Registered

TASK = Task(name="t", kind="class", metric="accuracy", splits={})
HERE = __name__


@attrs.frozen
class Ordered:
    """A source that provides what its options say."""

    binding: object
    provides: frozenset = frozenset({"data:document-order"})


def absent(binding):
    raise TaskError(f"no corpus for {binding.task.name}")


def load():
    return TASK


def _at(record, factory):
    return attrs.evolve(record, factory=f"{HERE}:{factory}")


REGISTRY = registry_of(
    _at(data("here", options={"rate": 0.5, "names": ["a"]}), "Ordered"),
    _at(data("away"), "absent"),
    _at(data("lost"), "no_such_factory"),
    transform("mask", options={"rate": 0.15, "whole": False, "spans": 3, "kind": "x"}),
)


def test_sources_are_bound_with_their_options_and_the_missing_give_their_reason():
    base = Binding(task=TASK, backbone=None, options={}, seed=7)
    bound, unavailable = bind_sources(
        ["here", "away", "here"], REGISTRY, base, {"here": {"rate": 0.9}}
    )
    assert unavailable == {"away": "no corpus for t"}
    assert list(bound) == ["here"]
    assert bound["here"].provides == {"data:document-order"}
    binding = bound["here"].binding
    assert binding.options == {"rate": 0.9, "names": ["a"]}
    assert (binding.seed, binding.task, binding.backbone) == (7, TASK, None)


def test_a_factory_that_does_not_exist_is_the_plugins_fault():
    with pytest.raises(PluginError, match="no_such_factory"):
        bind_sources(["lost"], REGISTRY, Binding(task=TASK, backbone=None, options={}), {})


def test_options_are_laid_over_the_defaults():
    record = REGISTRY.primitive("mask")
    assert settings_of(record, {"mask": {"rate": 0.3}, "other": {"rate": 1}}) == {
        "rate": 0.3,
        "whole": False,
        "spans": 3,
        "kind": "x",
    }


def test_right_options_pass():
    options = {"mask": {"rate": 1, "whole": True}, "here": {"names": ["b"]}}
    check_options(RunConfig(primitives=options), REGISTRY)


def test_every_wrong_option_is_named_at_once():
    options = {
        "mask": {"rat": 1, "rate": "much", "whole": 1, "spans": 2.5, "kind": 3},
        "here": {"names": "b"},
        "musk": {},
    }
    with pytest.raises(ConfigError) as error:
        check_options(RunConfig(primitives=options), REGISTRY)
    for fault in (
        "`primitives.mask.rat` is no setting; did you mean 'rate'?",
        "`primitives.mask.rate` must be a number (got 'much')",
        "`primitives.mask.whole` must be true or false (got 1)",
        "`primitives.mask.spans` must be a whole number (got 2.5)",
        "`primitives.mask.kind` must be a text (got 3)",
        "`primitives.here.names` must be a list (got 'b')",
        "unknown primitive 'musk'; did you mean 'mask'?",
    ):
        assert fault in str(error.value)
    assert "7 faults" in str(error.value)


def test_registered_tasks_load_when_called():
    origin = REGISTRY.primitives["mask"].provenance
    kind = TaskKind(name="t", summary="", factory=f"{HERE}:load")
    broken = TaskKind(name="u", summary="", factory="no_such_module:load")
    tasks = {k.name: Registered(record=k, provenance=origin) for k in (kind, broken)}
    found = registered_tasks(attrs.evolve(REGISTRY, tasks=tasks))
    assert found["t"]() is TASK
    with pytest.raises(PluginError, match="cannot load 'no_such_module:load'"):
        found["u"]()


def no_small_rate(options):
    return [] if options["rate"] > 0.1 else [f"rate {options['rate']} is too small"]


def test_a_records_own_check_and_the_other_tables_are_reported_together():
    record = data("own", options={"rate": 0.5})
    registry = registry_of(attrs.evolve(record, check_options=f"{HERE}:no_small_rate"))
    check_options(RunConfig(primitives={"own": {"rate": 0.2}}), registry)
    with pytest.raises(ConfigError) as error:
        check_options(
            RunConfig(primitives={"own": {"rate": 0.0}}, loggers={"board": {"every": 3}}), registry
        )
    assert "[primitives.own]: rate 0.0 is too small" in str(error.value)
    assert "[loggers.board]: unknown logger 'board'" in str(error.value)
