"""The registry: provenance, clashes, and hooks that return what they may not."""

from __future__ import annotations

import pytest
from _plugins import PLUGIN, importable, points_in, write_distribution

from aang_core.errors import ConfigError, PluginError
from aang_core.registry.discovery import discover
from aang_core.registry.registry import collect, load_registry

HEAD = (
    "from aang_core.registry.hookspecs import hookimpl\nfrom aang_core.registry.records import *\n"
)


def _registry(tmp_path, monkeypatch, **sources):
    for name, source in sources.items():
        module = f"mod_{name}"
        folder = tmp_path / name
        write_distribution(folder, f"dist-{name}", "1.0", {name: module}, **{module: source})
        importable(folder, monkeypatch)
    return collect(discover(found=points_in(*(tmp_path / name for name in sources))))


def _hook(hook, body):
    return f"{HEAD}\n@hookimpl\ndef {hook}():\n    {body}\n"


def test_a_record_knows_who_brought_it(tmp_path, monkeypatch):
    source = PLUGIN.format(name="reverse", module="mod_a")
    entry = _registry(tmp_path, monkeypatch, a=source).primitives["reverse"]
    assert (entry.stage, entry.plugin, entry.distribution, entry.version) == (
        "transform",
        "a",
        "dist-a",
        "1.0",
    )


def test_primitives_are_sorted_by_stage_and_name(tmp_path, monkeypatch):
    outputs = _hook("aang_outputs", "return [Output(name='a-loss', summary='', factory='m:f')]")
    data = _hook(
        "aang_data_sources",
        "return [DataSource(name=n, summary='', factory='m:f') for n in ('z-data', 'b-data')]",
    )
    registry = _registry(tmp_path, monkeypatch, a=outputs, b=data)
    assert list(registry.primitives) == ["b-data", "z-data", "a-loss"]
    assert registry.at_stage("data") == ("b-data", "z-data")


def test_a_clash_across_stages_names_both_distributions(tmp_path, monkeypatch):
    as_output = _hook("aang_outputs", "return [Output(name='reverse', summary='', factory='m:f')]")
    with pytest.raises(PluginError) as error:
        _registry(
            tmp_path, monkeypatch, a=PLUGIN.format(name="reverse", module="mod_a"), b=as_output
        )
    assert str(error.value) == (
        "the primitive name 'reverse' is claimed by plugin 'a' (dist-a 1.0) as transform "
        "and plugin 'b' (dist-b 1.0) as output"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return ['mask']", "returned 'mask'; expected records of the class Transform"),
        ("return None", "returned None; expected an iterable of records"),
        ("return 3", "failed: TypeError"),
        ("raise ValueError('broken')", "failed: ValueError: broken"),
        ("return [Transform(name='Bad Name', summary='', factory='m:f')]", "names are kebab-case"),
        ("return [Transform(name='a', summary='', factory='m:f', needs=())]", "'needs'"),
        ("return [Transform(name='a', summary='', factory='m:f', requires='x')]", "list of names"),
        ("return [Output(name='a', summary='', factory='m:f')]", "of the class Transform"),
    ],
)
def test_a_hook_that_misbehaves_is_named(tmp_path, monkeypatch, body, message):
    with pytest.raises(PluginError, match=message) as error:
        _registry(tmp_path, monkeypatch, a=_hook("aang_transforms", body))
    assert str(error.value).startswith("plugin 'a' (dist-a 1.0): aang_transforms ")


def test_several_faults_come_at_once(tmp_path, monkeypatch):
    with pytest.raises(PluginError) as error:
        _registry(
            tmp_path,
            monkeypatch,
            a=_hook("aang_transforms", "return [1]"),
            b=_hook("aang_outputs", "raise ValueError"),
        )
    assert "2 faults" in str(error.value)


def test_an_unknown_name_mentions_failed_plugins(tmp_path, monkeypatch):
    registry = _registry(
        tmp_path, monkeypatch, a=PLUGIN.format(name="reverse", module="mod_a"), b="import nowhere_"
    )
    with pytest.raises(ConfigError) as error:
        registry.primitive("revers")
    assert "unknown primitive 'revers'; did you mean 'reverse'?" in str(error.value)
    assert "plugin 'b' (dist-b 1.0) failed to import" in str(error.value)


def test_the_longest_prefix_finds_the_backbone(tmp_path, monkeypatch):
    source = _hook(
        "aang_backbones",
        "return [BackboneKind(name='general', summary='', factory='m:f', prefixes=('x:',), "
        "fallback=True), BackboneKind(name='special', summary='', factory='m:f', "
        "prefixes=('x:y:',))]",
    )
    registry = _registry(tmp_path, monkeypatch, a=source)
    assert registry.backbone_for("x:y:z").name == "special"
    assert registry.backbone_for("x:z").name == "general"
    assert registry.backbone_for("some/model").name == "general"


def test_a_model_that_no_backbone_takes_is_an_error(tmp_path, monkeypatch):
    registry = _registry(tmp_path, monkeypatch, a=PLUGIN.format(name="r", module="mod_a"))
    with pytest.raises(ConfigError, match="belongs to no installed backbone"):
        registry.backbone_for("some/model")


def test_the_environment_lists_plugins_where_no_argument_does(monkeypatch):
    monkeypatch.setenv("AANG_PLUGINS", "no-such-plugin")
    with pytest.raises(PluginError, match="'no-such-plugin' is listed by"):
        load_registry()
    names = [p.provenance.plugin for p in load_registry(frozenset({"text"})).plugins]
    assert names == ["text"], "an argument goes before the environment"
