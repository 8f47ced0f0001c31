"""Pages of the documentation as tests see them: fenced blocks, and a folder in which they are carried out.

A block with a title is a file, written before what follows it. A ``sh`` block is run line by line, a ``python`` block
as a program, unless a comment ``<!-- not run: REASON -->`` stands above it. ``aang`` runs in this process; what
trains is cut down to two steps of the smallest encoder, on the smallest task where it names none.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import attrs
from _tasks import write_task
from aang_cli.main import main
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(
    r'(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n'
    r"(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
TASK = "boxes"
_QUICK = {
    "training.eval_every": 1,
    "training.end_task_rows": 4,
    "training.auxiliary_rows": 12,
    "training.final_epochs": 0,
    "meta.objectives_per_step": 3,
    "meta.dev_rows": 4,
    "meta.dev_head_rows": 4,
    "meta.dev_head_steps": 2,
}
QUICK = [
    *("--model", "scratch:tiny", "--max-steps", "2"),
    *(word for key, value in _QUICK.items() for word in ("--set", f"{key}={value}")),
]


@attrs.frozen
class Block:
    """One fenced block. `reason`: why it is not run, or empty; `title`: the file that it is, or empty."""

    language: str
    body: str
    title: str
    reason: str

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block, continued lines joined, without comments."""
        joined = self.body.replace("\\\n", " ").splitlines()
        return [line.strip() for line in joined if line.strip() and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [
        Block(m["language"], m["body"], m["title"] or "", (m["reason"] or "").strip())
        for m in found
    ]


def files(page: Path) -> dict[str, str]:
    """The files that a page writes, by path."""
    return {block.title: block.body for block in blocks(page) if block.title}


def _cut_down(words: list[str]) -> list[str]:
    """What is added to a command that trains, so that it takes a second."""
    if words[0] != "run" or "--resume" in words:
        return []
    return QUICK if "--task" in words else [*QUICK, "--task", TASK]


class Workspace:
    """A folder in which pages are followed; the current one while a test runs.

    :param site: where ``pip install`` puts packages; it must be on the path of this process.
    """

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder, self.site = folder, site
        (folder / "docs").symlink_to(ROOT / "docs")
        write_task(folder / TASK)
        self.ran: list[str] = []

    def follow(self, page: Path) -> None:
        """Carry out every block of a page; a command that fails ends it."""
        for block in blocks(page):
            if block.title:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.body, encoding="utf-8")
            elif block.reason:
                continue
            elif block.language == "sh":
                for line in block.lines:
                    self.run(line)
            elif block.language == "python":
                exec(compile(block.body, page.name, "exec"), {"__name__": "page"})

    def run(self, line: str) -> str:
        """One command; what it wrote to stdout."""
        self.ran.append(line)
        words = shlex.split(line, comments=True)
        if words[0] == "aang":
            return self._aang(words[1:])
        if words[:2] == ["pip", "install"]:
            offline = ["--no-index", "--quiet", "--disable-pip-version-check", "--target"]
            words[2:2] = [*offline, str(self.site)]
        programs = {"pip": ["pip"], "pytest": ["pytest", "-q", "-p", "no:cacheprovider"]}
        if words[0] in programs:
            words[:1] = [sys.executable, "-m", *programs[words[0]]]
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.site)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _aang(self, words: list[str]) -> str:
        done = CliRunner().invoke(main, [*words, *_cut_down(words)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, f"aang {shlex.join(words)}\n{done.output}"
        return done.stdout
