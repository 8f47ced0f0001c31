"""The documentation site builds strictly, lists every page, asks nobody, and fits a phone."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the site needs the dependency group 'docs'")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files")
MEASURE = """<script>addEventListener('load', () => setTimeout(() => {
  const pages = [...document.querySelectorAll('iframe')];
  document.title = JSON.stringify(pages.map(f => f.contentDocument.documentElement.scrollWidth));
}, 500));</script>"""


@pytest.fixture(scope="module")
def site(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "mkdocs",
                "build",
                "--strict",
            ),  # --quiet would silence --strict
            *("--site-dir", str(folder)),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_generated_reference_covers_what_there_is(site):
    from aang_cli.main import COMMANDS

    from aang_core import _HOME_OF
    from aang_core.registry.discovery import HOOKS

    commands = text(site / "reference" / "commands.html")
    assert all(f'id="{name}"' in commands for name in COMMANDS)
    assert 'id="plugins-new"' in commands
    assert "--space" in commands
    hooks = text(site / "reference" / "hooks.html")
    assert all(f'id="{name}"' in hooks for name in HOOKS)
    settings = text(site / "reference" / "settings.html")
    assert all(key in settings for key in ("training.lr", "meta.alignment", "heads.decoder"))
    names = text(site / "reference" / "python.html")
    assert not [name for name in _HOME_OF.keys() - {"hookimpl"} if f'.{name}"' not in names]


def test_every_setting_is_explained(site):
    rows = re.findall(r"<tr>(.*?)</tr>", text(site / "reference" / "settings.html"), re.DOTALL)
    cells = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in rows]
    assert sum(bool(row) for row in cells) > 60
    assert not [row[0] for row in cells if row and len(row[-1]) < 10]


def test_no_page_asks_another_machine_for_anything(site):
    asking = re.compile(r"<(?:link|script|img|iframe)[^>]+(?:href|src)=\"(?:https?:)?//")
    assert not [path.name for path in pages(site) if asking.search(text(path))]


def test_no_file_of_the_generators_is_published(site):
    assert not list(site.rglob("*.py"))


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_fits_the_window(site, width, tmp_path):
    found = pages(site)
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:900px" src="{path.as_uri()}"></iframe>'
        for path in found
    )
    frame = tmp_path / "frame.html"
    frame.write_text(f"<!doctype html><body>{frames}{MEASURE}", "utf-8")
    done = subprocess.run(
        [
            *(BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"),
            *("--virtual-time-budget=20000", "--dump-dom", frame.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    widths = json.loads(html.unescape(title[1]))
    assert len(widths) == len(found)
    wide = {path.name: w for path, w in zip(found, widths, strict=True) if w > width}
    assert not wide
