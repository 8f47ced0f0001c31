"""Hooks for mkdocs: pages generated from the code, and links that leave ``docs/``.

The reference of commands, settings, hooks and the Python interface is generated for every build, so it is never
out of date. ``CONTRIBUTING.md`` and ``CHANGELOG.md`` lie above ``docs/`` and become pages too.
"""

from __future__ import annotations

import re
from pathlib import Path

import commands
import hooks
import python
import settings
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
ABOVE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
"""Documents above ``docs/`` → the page that stands for each."""

_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    made = {
        "reference/commands.md": commands.page(),
        "reference/settings.md": settings.page(),
        "reference/hooks.md": hooks.page(),
        "reference/python.md": python.page(),
    }
    for name, page in ABOVE.items():
        if page != "index.md":
            made[page] = (ROOT / name).read_text(encoding="utf-8")
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links to documents above ``docs/``, and from them into it, to their pages."""
    above = page.file.src_uri in ABOVE.values() and page.file.src_uri != "index.md"
    depth = page.file.src_uri.count("/")

    def mended(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if above:
            target = target.removeprefix("docs/")
        name = target.removeprefix("../" * (depth + 1))
        if name in ABOVE and (above or name != target):
            target, anchor = "../" * depth + ABOVE[name], ""
        return f"]({target}{anchor})"

    return _LINK.sub(mended, markdown)
