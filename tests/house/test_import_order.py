"""Every import of the core points one way: a room imports only rooms before it, and no room imports the doors.

That holds for imports inside functions and under ``TYPE_CHECKING`` too, for a room that needs a later one only at
times needs it all the same.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "aang_core"
ROOT = ("errors", "files", "markdown", "machine", "randomness", "processes", "_moved")
"""The small modules that stand under all rooms; they import no room."""
ROOMS = (
    *("config", "registry", "data", "batch", "method", "rundir"),
    *("train", "check", "analysis", "selection", "study"),
)
"""In the order of the house."""
DOORS = ("__init__", "testing")
"""What gathers names for others: they import everything, and no room imports them."""
VERSION = "aang_core.__version__"
"""Stands in a door, where the build reads it, and needs nothing."""


def imported(source: str) -> Iterator[tuple[int, str]]:
    """The line and the dotted name of every import of the core in a module, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write the whole name, without dots before"
            if node.module == "aang_core":
                yield from ((node.lineno, f"aang_core.{alias.name}") for alias in node.names)
            elif node.module and node.module.startswith("aang_core."):
                yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from ((node.lineno, name) for name in names if name.startswith("aang_core"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            words = [word.value for word in node.args if isinstance(word, ast.Constant)]
            yield from ((node.lineno, str(w)) for w in words if str(w).startswith("aang_core"))


def wrong(room: str, source: str) -> list[str]:
    """The imports that a module of `room` (or of the root) may not have, with their lines.

    :param room: its folder, or the module's own name where it stands in the root.
    """
    allowed = {*ROOT, *(ROOMS[: ROOMS.index(room) + 1] if room in ROOMS else ())}
    return [
        f"line {line}: {room} imports {name}"
        for line, name in imported(source)
        if name != VERSION and (*name.split("."), "__init__")[1] not in allowed
    ]


def room_of(path: Path) -> str:
    """The folder under the core, or the name of a module that stands in its root."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


MODULES = [path for path in sorted(CORE.rglob("*.py")) if room_of(path) not in DOORS]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(CORE).as_posix())
def test_a_room_imports_only_rooms_before_it(path):
    assert not wrong(room_of(path), path.read_text("utf-8"))


def test_every_module_stands_in_a_room_that_has_a_place_in_the_order():
    assert {room_of(path) for path in MODULES} == {*ROOT, *ROOMS}


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("method", "def f():\n    from aang_core.train.step import train_step\n"),
        ("train", "if TYPE_CHECKING:\n    from aang_core.study import pool\n"),
        ("batch", "import aang_core.method.heads as heads\n"),
        ("files", "from aang_core.config.settings import RunConfig\n"),
        ("study", "from aang_core import run\n"),
        ("check", "from aang_core.testing import tiny_task\n"),
        ("data", "importlib.import_module('aang_core.batch.rows')\n"),
    ],
)
def test_an_import_that_points_the_wrong_way_is_found(room, source):
    assert len(wrong(room, source)) == 1


def test_imports_of_earlier_rooms_and_of_the_own_are_right():
    source = (
        "import torch\nfrom aang_core import errors\nfrom aang_core.batch.rows import Row\n"
        "from aang_core.method.heads import x\n"
    )
    assert not wrong("method", source)
