"""The public names of the core: each exists, is typed, and none costs torch before it is used."""

import ast
import subprocess
import sys

import pytest

import aang_core


def _declared(root) -> dict[str, str]:
    """Name → module, as the imports for type checkers say it."""
    tree = ast.parse((root / "aang_core" / "__init__.py").read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.asname: node.module.removeprefix("aang_core.")
        for block in guarded
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_and_the_interpreter_see_the_same_names(root):
    assert _declared(root) == aang_core._HOME_OF


@pytest.mark.parametrize("name", sorted(aang_core._HOME_OF))
def test_every_public_name_is_there(name):
    assert getattr(aang_core, name) is not None
    assert name in dir(aang_core)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'transforms'"):
        aang_core.transforms  # noqa: B018


def test_records_cost_no_torch():
    code = "from aang_core import Transform, hookimpl; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
