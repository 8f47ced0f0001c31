"""What may import what, and that importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CORE = sorted((Path(__file__).resolve().parents[2] / "aang_core").rglob("*.py"))
FORBIDDEN = {
    "aang_text",
    "aang_vision",
    "aang_cli",
    "click",
    "rich",
    "transformers",
    "tokenizers",
    "sentence_transformers",
    "pysbd",
    "nltk",
    "spacy",
}
# what an import could change for everybody; printed before and after
_STATE = """
import hashlib, logging, os, random, signal, sys, warnings
import numpy, torch
def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "random": hashlib.sha256(repr(random.getstate()).encode()).hexdigest(),
        "numpy": hashlib.sha256(repr(numpy.random.get_state()).encode()).hexdigest(),
        "torch": torch.random.get_rng_state().sum().item(),
        "dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
        "logging": (logging.root.level, len(logging.root.handlers)),
        "filters": len(warnings.filters),
        "interrupt": str(signal.getsignal(signal.SIGINT)),
    }
import sklearn.metrics, scipy.stats, datasets, pluggy, attrs, safetensors.torch
before = state()
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
after = state()
changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
assert not changed, changed
"""


def _imported(path):
    """The top-level names of every import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value).partition(".")[0]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_knows_no_text_no_command_line_and_no_primitive(path):
    assert not FORBIDDEN & set(_imported(path))


PACKAGES = {
    *("aang_cli", "aang_loggers", "aang_selectors", "aang_text", "aang_vision", "aang_weightings")
}
PLUGINS = [
    (name, path)
    for name in sorted(PACKAGES - {"aang_cli"})
    for path in sorted((CORE[0].parents[1] / "plugins").rglob(f"{name}/**/*.py"))
]


@pytest.mark.parametrize(("name", "path"), PLUGINS, ids=lambda value: getattr(value, "stem", value))
def test_a_plugin_imports_the_core_and_itself(name, path):
    assert not (PACKAGES - {name}) & set(_imported(path))


def test_the_plugins_are_found():
    assert {name for name, _ in PLUGINS} == PACKAGES - {"aang_cli"}


@pytest.mark.parametrize(
    "path", sorted((CORE[0].parents[1] / "cli").rglob("*.py")), ids=lambda path: path.stem
)
def test_the_command_line_names_no_plugin(path):
    assert not (PACKAGES - {"aang_cli"}) & set(_imported(path))
    assert not [name for name in PACKAGES - {"aang_cli"} if name in path.read_text("utf-8")]


def test_the_import_search_sees_lazy_imports(tmp_path):
    source = (
        "def f():\n    import click.core\n    from transformers import x\n"
        "    importlib.import_module('pysbd.y')\n"
    )
    path = tmp_path / "m.py"
    path.write_text(source, "utf-8")
    assert set(_imported(path)) == {"click", "transformers", "pysbd"}


def test_importing_the_core_changes_nothing():
    package = Path(CORE[0]).parent
    names = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in CORE
    ]
    done = subprocess.run(
        [sys.executable, "-c", _STATE, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "importing prints nothing"
