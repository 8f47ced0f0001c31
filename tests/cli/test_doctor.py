"""``aang doctor`` on healthy and on broken installations, shell completion, and the version."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from aang_cli import doctor
from aang_cli.main import main
from click.testing import CliRunner
from packaging.requirements import Requirement

from aang_core import __version__


def findings(*arguments, env=None):
    done = CliRunner().invoke(main, ["doctor", "--json", *arguments], env=env)
    found = json.loads(done.stdout)
    assert found["healthy"] is not any(row["state"] == "mend" for row in found["findings"])
    assert done.exit_code == (0 if found["healthy"] else 1)
    return {row["check"]: row for row in found["findings"]}, done


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    return findings("--out", str(folder / "runs"), env={"XDG_CACHE_HOME": str(folder)})[0]


def test_everything_that_a_run_needs_is_looked_at(healthy):
    needed = {
        "aang",
        "python",
        "torch",
        "transformers",
        "click",
        "threads",
        "device",
        "runs",
        "cache",
    }
    assert needed <= healthy.keys()
    assert {"plugin text", "plugin loggers", "bundled:minilm"} <= healthy.keys()
    assert healthy["aang"]["found"] == __version__
    assert healthy["HF_HUB_OFFLINE"]["found"] == "1"
    assert "unset it" in healthy["HF_HUB_OFFLINE"]["do"]
    assert all(row["state"] in ("ok", "note", "mend") for row in healthy.values())
    assert all(row["do"] for row in healthy.values() if row["state"] == "mend")


def test_nothing_is_written(tmp_path):
    findings("--out", str(tmp_path / "runs"), env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_a_run_directory(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    rows, done = findings("--out", str(tmp_path / "file" / "runs"))
    assert rows["runs"]["state"] == "mend"
    assert "to be mended:" in done.stderr
    assert "runs" in done.stderr


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_SPACE", 2**80)
    rows, _ = findings("--out", str(tmp_path))
    assert rows["runs"]["state"] == "mend"
    assert "free at least" in rows["runs"]["do"]


@pytest.mark.parametrize(
    ("requirement", "extra", "state", "do"),
    [
        ("click>=8.1", "", "ok", ""),
        ("click>=99", "", "mend", "pip install 'click>=99'"),
        ("no-such-thing>=1", "", "mend", "pip install 'no-such-thing>=1'"),
        ("no-such-thing>=1", "plots", "note", "pip install 'aang[plots]'"),
        ("click>=99", "plots", "mend", "pip install 'click>=99'"),
    ],
)
def test_versions_against_what_is_supported(requirement, extra, state, do):
    found = doctor._dependency(Requirement(requirement), extra)
    assert (found.state, found.do) == (state, do)


def test_the_extra_of_a_requirement():
    assert doctor._extra_of(Requirement('ray[tune]>=2; extra == "sweep"')) == "sweep"
    assert doctor._extra_of(Requirement('x; python_version > "3" and extra == "plots"')) == "plots"
    assert doctor._extra_of(Requirement("attrs>=24.1")) == ""


@pytest.mark.parametrize(
    ("driver", "built", "state"),
    [(False, "13.0", "ok"), (True, None, "note"), (True, "13.0", "mend")],
)
def test_a_gpu_that_torch_cannot_use(tmp_path, monkeypatch, driver, built, state):
    monkeypatch.setattr(doctor, "_DRIVER", tmp_path if driver else tmp_path / "none")
    found = doctor._without_cuda(built)
    assert found.state == state
    assert bool(found.do) is (state != "ok")


def test_a_broken_plugin_is_named_with_its_cause_and_what_to_do(tmp_path):
    info = tmp_path / "aang_broken-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: aang-broken\nVersion: 1.2\n", "utf-8"
    )
    (info / "entry_points.txt").write_text("[aang]\nbroken = aang_broken_hooks\n", "utf-8")
    (tmp_path / "aang_broken_hooks.py").write_text("import nothing_of_this_name\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "aang_cli", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (row,) = [r for r in json.loads(done.stdout)["findings"] if r["check"] == "plugin broken"]
    assert row["state"] == "mend"
    assert "aang-broken 1.2 failed to import: ModuleNotFoundError" in row["found"]
    assert "uninstall aang-broken" in row["do"]


def test_the_bundled_encoder_with_a_changed_byte(tmp_path, monkeypatch):
    package = tmp_path / "damaged_encoder" / "model"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("", "utf-8")
    (package / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    from aang_text.encoder import checkpoint

    monkeypatch.setitem(checkpoint.BUNDLED, "bundled:damaged", ("damaged_encoder", "0" * 64, "x"))
    monkeypatch.setitem(checkpoint.BUNDLED, "bundled:absent", ("absent_encoder", "0" * 64, "x"))
    found = {finding.check: finding for finding in doctor._backbones()}
    assert found["bundled:damaged"].state == "mend"
    assert "sha256" in found["bundled:damaged"].found
    assert found["bundled:absent"].state == "note"


# --- completion and version


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0, done.output
    assert "_AANG_COMPLETE" in done.stdout


def _completed(words, index):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "aang_cli"],
        env={
            **os.environ,
            "_AANG_COMPLETE": "fish_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": index,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = re.findall(r"\|\s+(\S+)$", done.stderr, re.MULTILINE)
    assert "click" in loaded
    assert not {"torch", "transformers", "datasets"} & set(loaded), "a shell does not wait for them"
    return done.stdout


@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        ("aang swe", "swe", "sweep"),
        ("aang list-objectives --space td", "td", "td+ed"),
        ("aang run --with spa", "spa", "span-mask"),
    ],
)
def test_names_are_completed_without_loading_torch(words, last, expected):
    assert expected in _completed(words, last)


def test_the_version():
    done = CliRunner().invoke(main, ["--version"])
    assert done.exit_code == 0
    assert done.stdout.strip() == f"aang, version {__version__}"
