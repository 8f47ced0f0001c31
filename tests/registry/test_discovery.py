"""Discovery over distributions that are really on disk."""

from __future__ import annotations

import pytest
from _plugins import PLUGIN, importable, points_in, write_distribution

from aang_core.errors import PluginError
from aang_core.registry.discovery import HOOKS, allow_list, discover


def _plugin(folder, monkeypatch, distribution="one", plugin="p", module="mod_p", source=None):
    source = PLUGIN.format(name="reverse", module=module) if source is None else source
    write_distribution(folder, distribution, "1.2", {plugin: module}, **{module: source})
    importable(folder, monkeypatch)


def test_a_plugin_is_found_with_its_provenance_and_hooks(tmp_path, monkeypatch):
    _plugin(tmp_path, monkeypatch)
    (plugin,) = discover(found=points_in(tmp_path)).plugins
    assert str(plugin.provenance) == "'p' (one 1.2)"
    assert plugin.hooks == ("aang_transforms",)


def test_two_distributions_with_one_plugin_name_are_an_error_naming_both(tmp_path, monkeypatch):
    _plugin(tmp_path / "a", monkeypatch, "first-dist", module="mod_a")
    _plugin(tmp_path / "b", monkeypatch, "second-dist", module="mod_b")
    with pytest.raises(PluginError) as error:
        discover(found=points_in(tmp_path / "a", tmp_path / "b"))
    assert str(error.value) == (
        "the plugin name 'p' is claimed by first-dist 1.2 and second-dist 1.2; "
        "uninstall one of them"
    )


def test_one_distribution_seen_twice_counts_once(tmp_path, monkeypatch):
    _plugin(tmp_path / "a", monkeypatch, "My.Dist", module="mod_a")
    _plugin(tmp_path / "b", monkeypatch, "my-dist", module="mod_b")
    (plugin,) = discover(found=points_in(tmp_path / "a", tmp_path / "b")).plugins
    assert plugin.module.__name__ == "mod_a", "the first on the path is what Python imports"


def test_a_plugin_that_fails_to_import_is_kept_apart(tmp_path, monkeypatch):
    _plugin(tmp_path / "a", monkeypatch, "good", "good", "mod_a")
    _plugin(tmp_path / "b", monkeypatch, "bad", "bad", "mod_b", "import no_such_thing")
    found = discover(found=points_in(tmp_path / "a", tmp_path / "b"))
    assert [plugin.provenance.plugin for plugin in found.plugins] == ["good"]
    (failed,) = found.failed
    assert str(failed) == (
        "plugin 'bad' (bad 1.2) failed to import: "
        "ModuleNotFoundError: No module named 'no_such_thing'"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "from aang_core.registry.hookspecs import hookimpl\n@hookimpl\ndef aang_transform(): return []",
            "implements the unknown hook 'aang_transform'; did you mean 'aang_transforms'?",
        ),
        ("def aang_outputs(): return []", "defines 'aang_outputs' without the marker"),
        (
            "from aang_core.registry.hookspecs import hookimpl\n@hookimpl\ndef aang_outputs(x): return []",
            "cannot be registered",
        ),
    ],
)
def test_hooks_that_would_never_be_called_are_errors(tmp_path, monkeypatch, source, message):
    _plugin(tmp_path, monkeypatch, source=source)
    with pytest.raises(PluginError, match=message) as error:
        discover(found=points_in(tmp_path))
    assert "'p' (one 1.2)" in str(error.value)


def test_the_allow_list_keeps_others_from_being_imported(tmp_path, monkeypatch):
    _plugin(tmp_path / "a", monkeypatch, "a", "a", "mod_a")
    _plugin(tmp_path / "b", monkeypatch, "b", "b", "mod_b", "raise RuntimeError('imported')")
    found = discover(frozenset({"a"}), points_in(tmp_path / "a", tmp_path / "b"))
    assert [plugin.provenance.plugin for plugin in found.plugins] == ["a"]
    assert found.failed == ()


def test_a_listed_plugin_that_is_not_installed_is_an_error(tmp_path, monkeypatch):
    _plugin(tmp_path, monkeypatch, plugin="losses")
    with pytest.raises(PluginError, match=r"'loses' .*not installed; did you mean 'losses'"):
        discover(frozenset({"loses"}), points_in(tmp_path))


def test_order_does_not_depend_on_installation(tmp_path, monkeypatch):
    for letter in "cab":
        _plugin(tmp_path / letter, monkeypatch, letter, letter, f"mod_{letter}")
    folders = [tmp_path / letter for letter in "bca"]
    for order in (folders, folders[::-1]):
        names = [p.provenance.plugin for p in discover(found=points_in(*order)).plugins]
        assert names == ["a", "b", "c"]


def test_two_plugins_cannot_be_one_module(tmp_path, monkeypatch):
    source = PLUGIN.format(name="reverse", module="mod_p")
    write_distribution(tmp_path, "d", "1", {"one": "mod_p", "two": "mod_p"}, mod_p=source)
    importable(tmp_path, monkeypatch)
    with pytest.raises(PluginError, match=r"'two' \(d 1\) cannot be registered"):
        discover(found=points_in(tmp_path))


def test_the_allow_list_reads_commas_and_blanks():
    assert allow_list(" text, losses,") == {"text", "losses"}
    assert allow_list(" ") is None


def test_every_hook_of_the_specification_is_known():
    assert "aang_data_sources" in HOOKS
    assert len(HOOKS) == 12
