"""The distribution that users get: what is in it, and that it works without the checkout."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PACKAGES = {
    *("aang_core", "aang_loggers", "aang_selectors", "aang_text", "aang_weightings", "aang_cli")
}


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command to its end; its output, or a failure that shows what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(root, tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist, built by the installed hatchling: nothing is fetched."""
    folder = tmp_path_factory.mktemp("dist")
    run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--sdist",
        "--wheel",
        "--outdir",
        folder,
        root,
        cwd=root,
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_has_its_packages_and_nothing_else(names):
    tops = {name.split("/")[0] for name in names}
    (info,) = {top for top in tops if top.endswith(".dist-info")}
    assert tops == PACKAGES | {info}
    assert info.startswith("aang-")


def test_every_module_of_the_checkout_is_in_the_wheel(root, names):
    sources = {
        path.relative_to(parent).as_posix()
        for parent, package in (
            (root, "aang_core"),
            (root / "plugins", "aang_loggers"),
            (root / "plugins", "aang_selectors"),
            (root / "plugins", "aang_text"),
            (root / "plugins", "aang_weightings"),
            (root / "cli", "aang_cli"),
        )
        for path in (parent / package).rglob("*.py")
    }
    assert sources == {name for name in names if name.endswith(".py")}


def test_the_templates_of_new_plugins_are_in_the_wheel(root, names):
    folder = root / "cli" / "aang_cli" / "templates"
    there = {path.relative_to(root / "cli").as_posix() for path in folder.rglob("*.in")}
    assert len(there) > 15
    assert there <= set(names)


def test_the_wheel_is_typed_licensed_and_names_its_entry_points(wheel, names):
    assert "aang_core/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (path,) = [name for name in names if name.endswith("entry_points.txt")]
    entries = zipfile.ZipFile(wheel).read(path).decode().split()
    assert "".join(entries) == (
        "[console_scripts]aang=aang_cli.main:main"
        "[aang]loggers=aang_loggers.hooksselectors=aang_selectors.hookstext=aang_text.hooks"
        "weightings=aang_weightings.hooks"
    )


def test_the_sdist_holds_what_a_build_and_the_gate_need(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert {"Makefile", "constraints.txt", "tests/conftest.py", "docs/idea.svg"} <= names
    assert {"constraints-lowest.txt", "mkdocs.yml", "docs/howto/data.md"} <= names
    assert not any(name.startswith((".venv", "runs")) for name in names)


def test_the_wheel_works_without_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
        *("--disable-pip-version-check", "--target", target, wheel),
        cwd=tmp_path,
    )
    code = (
        "import aang_cli, aang_core, aang_text, json\n"
        "from importlib.metadata import distribution\n"
        "files = [aang_core.__file__, aang_text.__file__, aang_cli.__file__]\n"
        "print(json.dumps([files, aang_core.__version__, distribution('aang').version]))"
    )
    # Put first on the path, the target hides the editable installation.
    files, version, recorded = json.loads(
        run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target))
    )
    assert all(Path(file).is_relative_to(target) for file in files)
    assert version == recorded
    listed = run(
        *(sys.executable, "-m", "aang_cli", "list-objectives", "--space", "td", "--json"),
        cwd=tmp_path,
        PYTHONPATH=str(target),
    )
    assert len(json.loads(listed)) == 24
