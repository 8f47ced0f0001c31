"""Old places of modules keep working for one minor version, with a warning."""

import importlib
import sys

import pytest
from aang_text import MOVED as TEXT_MOVED

from aang_core import __version__
from aang_core._moved import MOVED
from aang_core.registry.records import load_factory


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_gives_the_module_at_its_new_place(old):
    sys.modules.pop(f"aang_core.{old}", None)
    with pytest.warns(
        DeprecationWarning, match=rf"aang_core\.{old} is now aang_core\.{MOVED[old]}"
    ):
        found = importlib.import_module(f"aang_core.{old}")
    new = importlib.import_module(f"aang_core.{MOVED[old]}")
    assert found is new
    assert new.__spec__.name == new.__name__ == f"aang_core.{MOVED[old]}"


@pytest.mark.parametrize("old", sorted(TEXT_MOVED))
def test_an_old_name_of_the_text_plugin_gives_its_new_place(old):
    sys.modules.pop(f"aang_text.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"aang_text\.{old} is now"):
        found = importlib.import_module(f"aang_text.{old}")
    new = TEXT_MOVED[old]
    assert found.__name__ == (new if new.startswith("aang_core.") else f"aang_text.{new}")


def test_a_record_may_name_the_old_place():
    from aang_core.method.end_task import EndTask

    sys.modules.pop("aang_core.end_task", None)
    with pytest.warns(DeprecationWarning, match="end_task"):
        assert load_factory("aang_core.end_task:EndTask") is EndTask


def test_modules_that_became_folders_still_give_their_names():
    from aang_core.config import RunConfig
    from aang_core.registry import load_registry

    assert RunConfig.__module__ == "aang_core.config.settings"
    assert load_registry.__module__ == "aang_core.registry.registry"
    with pytest.raises(ImportError):
        from aang_core.config import nothing  # noqa: F401


def test_a_selectors_context_still_goes_by_its_old_name():
    from aang_core.selection import protocols

    with pytest.warns(DeprecationWarning, match="now SelectionContext"):
        assert protocols.SelectionGround is protocols.SelectionContext
    with pytest.raises(AttributeError, match="nothing"):
        _ = protocols.nothing


def test_old_names_go_with_the_next_minor_version():
    assert __version__.startswith("0.1"), "remove aang_core/_moved.py and this file"
