"""Each job of the house is done in one place: running many configurations, checking a table, taking a directory."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import aang_core
from aang_core.config import schema

CORE = Path(__file__).resolve().parents[2] / "aang_core"


def names(path: Path) -> Iterator[str]:
    """Every module that a file imports, and every name that it reads, as they are written."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def where(*prefixes: str) -> set[str]:
    """The modules of the core that use a name beginning with one of these."""
    return {
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        if any(name == p or name.startswith(f"{p}.") for name in names(path) for p in prefixes)
    }


@pytest.mark.parametrize(
    ("job", "tools", "places"),
    [
        (
            "start processes for many configurations",
            (
                *("subprocess", "multiprocessing", "torch.multiprocessing"),
                *("concurrent.futures.ProcessPoolExecutor", "os.fork", "os.spawnv", "os.execv"),
            ),
            {"study/trials/pool.py"},
        ),
        ("ask Ray for its machines", ("ray",), {"study/trials/ray_pool.py"}),
        ("lock a directory", ("fcntl", "msvcrt", "os.lockf"), {"rundir/directory.py"}),
        ("parse TOML", ("tomllib",), {"files.py"}),
    ],
)
def test_one_module_can(job, tools, places):
    assert where(*tools) == places, f"one place to {job}"


def test_whole_runs_are_carried_out_by_one_function():
    """Whatever has many configurations makes `Trial`s of them; no other module loops over runs of its own."""
    makers = [
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "run_trials"
    ]
    assert len(makers) == 1
    assert makers[0].startswith("study/")


def _rules(kind: type) -> Iterator[type]:
    for found in kind.__subclasses__():
        yield found
        yield from _rules(found)


def test_the_one_language_for_tables_is_the_schemas():
    """A room describes its tables with the schema's rules; a kind of rule for one file's table alone is private."""
    for module in pkgutil.walk_packages(aang_core.__path__, "aang_core."):
        importlib.import_module(module.name)
    public = [rule for rule in _rules(schema.Rule) if not rule.__name__.startswith("_")]
    assert {rule.__module__.rpartition(".")[0] for rule in public} == {"aang_core.config"}
