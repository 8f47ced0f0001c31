"""A stranger's package: written, built and installed beside aang, which is not touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from _plugins import PLUGIN, write_distribution
from _tasks import flags, write_task

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "aang-echo"
version = "0.3.1"
dependencies = ["aang"]

[project.entry-points.aang]
echo = "aang_echo.hooks"
"""
HOOKS = '''
"""Echoes."""

from aang_core import Transform, hookimpl


@hookimpl
def aang_transforms():
    return [Transform(name="echo", summary="Repeat what stands to the left",
                      factory="aang_echo.echo:Echo", options={"rate": 0.15})]
'''
CODE = '''
"""Some tokens become the one on their left."""

import attrs
import torch


class Echo:
    def __init__(self, binding):
        self.rate = binding.options["rate"]

    def apply(self, packed, generator):
        chosen = torch.zeros_like(packed.special)
        for start, stop in zip(packed.offsets[:-1].tolist(), packed.offsets[1:].tolist()):
            words = start + (~packed.special[start:stop]).nonzero()[:, 0]
            count = min(len(words), max(1, round(self.rate * len(words))))
            chosen[words[torch.randperm(len(words), generator=generator)[:count]]] = True
        ids = packed.inputs["input_ids"]
        # the first position of a row is special for every encoder of ours, so none echoes another row
        changed = torch.where(chosen, ids.roll(1), ids)
        return attrs.evolve(packed, inputs={**packed.inputs, "input_ids": changed}, selected=chosen)
'''


def _pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """A folder into which the built package has been installed, as with ``pip install --target``."""
    top = tmp_path_factory.mktemp("third-party")
    source, wheels, target = top / "source", top / "wheels", top / "target"
    package = source / "aang_echo"
    package.mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT, "utf-8")
    for name, text in {"__init__": '"""Echo."""\n', "hooks": HOOKS, "echo": CODE}.items():
        (package / f"{name}.py").write_text(text, "utf-8")
    offline = ("--no-index", "--no-deps", "--quiet")
    _pip("wheel", *offline, "--no-build-isolation", "--wheel-dir", str(wheels), str(source))
    (wheel,) = wheels.glob("*.whl")
    _pip("install", *offline, "--target", str(target), str(wheel))
    return target


def _aang(*arguments, path, **environment):
    """Run the command in a fresh process that also finds what is installed in `path`."""
    places = os.pathsep.join(str(place) for place in (path if isinstance(path, list) else [path]))
    return subprocess.run(
        [sys.executable, "-m", "aang_cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places, **environment},
    )


def _rows(*arguments, path):
    done = _aang(*arguments, "--json", path=path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_package_is_listed_with_its_version(installed):
    rows = {row["name"]: row for row in _rows("plugins", path=installed)}
    assert rows["echo"]["distribution"] == "aang-echo"
    assert rows["echo"]["version"] == "0.3.1"
    assert rows["echo"]["primitives"] == ["echo"]
    assert rows["text"]["error"] == rows["echo"]["error"] == ""
    primitives = {row["name"]: row for row in _rows("list-primitives", path=installed)}
    assert primitives["echo"]["distribution"] == "aang-echo"


@pytest.mark.parametrize(("space", "count"), [("td", 30), ("td+ed", 50)])
def test_the_new_transform_composes_with_everything(installed, space, count):
    rows = _rows("list-objectives", "--space", space, "--with", "echo", path=installed)
    assert len(rows) == count
    found = _rows("list-objectives", "--space", space, path=installed)
    assert {row["id"] for row in found} < {row["id"] for row in rows}


def test_the_new_transform_keeps_the_contract(installed, tmp_path, monkeypatch):
    from aang_core.registry.registry import load_registry
    from aang_core.testing import check_primitive, tiny_binding

    monkeypatch.syspath_prepend(str(installed))
    record = load_registry().primitive("echo")
    check_primitive(record, tiny_binding(record, tmp_path))


def test_the_allow_list_leaves_the_package_out(installed):
    done = _aang("plugins", "--json", path=installed, AANG_PLUGINS="text")
    assert [row["name"] for row in json.loads(done.stdout)] == ["text"]


def test_a_second_distribution_with_the_same_plugin_name_is_an_error(installed, tmp_path):
    source = PLUGIN.format(name="other", module="other_hooks")
    write_distribution(tmp_path, "other-echo", "2.0", {"echo": "other_hooks"}, other_hooks=source)
    done = _aang("list-spaces", path=[installed, tmp_path])
    assert done.returncode == 1
    assert done.stderr == (
        "Error: the plugin name 'echo' is claimed by aang-echo 0.3.1 and other-echo 2.0; "
        "uninstall one of them\n"
    )


def test_a_second_distribution_with_the_same_primitive_is_an_error(installed, tmp_path):
    source = PLUGIN.format(name="echo", module="other_hooks")
    write_distribution(tmp_path, "other-echo", "2.0", {"second": "other_hooks"}, other_hooks=source)
    done = _aang("list-spaces", path=[installed, tmp_path])
    assert done.returncode == 1
    assert "aang-echo 0.3.1" in done.stderr
    assert "other-echo 2.0" in done.stderr


def test_a_plugin_that_fails_to_import_stops_only_what_needs_it(installed, tmp_path):
    write_distribution(tmp_path, "broken", "1.0", {"bad": "bad_hooks"}, bad_hooks="import nowhere_")
    path = [installed, tmp_path]
    cause = "plugin 'bad' (broken 1.0) failed to import: ModuleNotFoundError"
    assert len(_rows("list-objectives", "--space", "td", path=path)) == 24
    assert f"warning: {cause}" in _aang("list-objectives", path=path).stderr
    row = next(row for row in _rows("plugins", path=path) if row["name"] == "bad")
    assert row["error"] == "ModuleNotFoundError: No module named 'nowhere_'"
    unknown = _aang("list-objectives", "--with", "bad-op", path=path)
    assert unknown.returncode == 1
    assert f"note: {cause}" in unknown.stderr


def test_a_misspelt_hook_is_an_error(tmp_path):
    source = PLUGIN.format(name="x", module="hooks_x").replace("aang_transforms", "aang_transfroms")
    write_distribution(tmp_path, "typo", "1.0", {"typo": "hooks_x"}, hooks_x=source)
    done = _aang("plugins", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: plugin 'typo' (typo 1.0) implements the unknown hook 'aang_transfroms'; "
        "did you mean 'aang_transforms'?\n"
    )


def test_a_run_trains_with_the_transform(installed, tmp_path):
    task = write_task(tmp_path / "boxes")
    out = tmp_path / "run"
    arguments = ("--task", str(task), "--with", "echo", "--out", str(out), "--json", *flags())
    done = _aang("run", *arguments, path=installed)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["objectives"] == 30
    assert report["plugins"]["echo"] == "aang-echo 0.3.1"
    assert report["weights"]["stages"]["transform"]["echo"] > 0
    lines = (out / "history.jsonl").read_text("utf-8").splitlines()
    trained = {name for line in lines for name in json.loads(line)["losses"]}
    assert any("/echo/" in name for name in trained)
