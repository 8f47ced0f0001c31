"""What the documents promise: commands, code, links and defaults, checked against the program."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import click
import pytest
import torch
from aang_cli.main import main

import aang_core
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin, Packed
from aang_core.config.settings import RunConfig
from aang_core.testing import tiny_backbone, tiny_task

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, documents=DOCUMENTS) -> list[tuple[str, str]]:
    """Fenced blocks of one language, with the name of their document."""
    return [
        (path.name, body)
        for path in documents
        for found, body in FENCE.findall(path.read_text(encoding="utf-8"))
        if found == language
    ]


def commands() -> list[tuple[str, str]]:
    """Every `aang …` line in a shell block, continued lines joined."""
    lines = [
        (name, line.strip())
        for name, body in blocks("sh")
        for line in body.replace("\\\n", " ").splitlines()
    ]
    return [(name, line) for name, line in lines if line.startswith("aang ")]


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and what is left of them."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize(
    ("document", "line"), commands(), ids=lambda value: value.split("#")[0].strip()
)
def test_every_command_in_the_documents_exists_with_its_options(document, line):
    command, rest = resolved(shlex.split(line, comments=True)[1:])
    options = {
        name: param
        for param in command.params
        for name in (*param.opts, *param.secondary_opts)
        if isinstance(param, click.Option)
    }
    for word, value in zip(rest, [*rest[1:], ""][: len(rest)], strict=True):
        if not word.startswith("--"):
            continue
        assert word in options, f"`aang {command.name}` has no option {word}"
        if isinstance(options[word].type, click.Choice):
            assert value in options[word].type.choices


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_local_link_leads_somewhere(path):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (path.parent / target).exists()]


@pytest.mark.parametrize(("document", "body"), blocks("toml"))
def test_every_toml_block_parses(document, body):
    assert tomllib.loads(body)


@pytest.mark.parametrize(("document", "body"), blocks("python"))
def test_every_python_block_compiles(document, body):
    compile(body, document, "exec")


def defaults() -> list[tuple[str, str]]:
    """Rows of the tables in choices.md: an option's name, and the default that the page states."""
    text = (ROOT / "docs" / "choices.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| `([^`]+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize(("option", "stated"), defaults())
def test_choices_states_the_true_defaults(option, stated):
    table, _, name = option.partition(".")
    found = getattr(getattr(RunConfig(), table), name)
    assert json.dumps(found).strip('"') == stated


def test_choices_covers_every_option_of_the_search_that_has_named_ways():
    text = (ROOT / "docs" / "choices.md").read_text(encoding="utf-8")
    config = RunConfig()
    worded = [
        f"{table}.{field.name}"
        for table in ("meta", "heads")
        for field in attrs.fields(type(getattr(config, table)))
        if isinstance(getattr(getattr(config, table), field.name), str)
    ]
    assert len(worded) >= 5
    assert not [option for option in worded if f"`{option}`" not in text]


def tutorial_files() -> dict[str, str]:
    """The example plugin of the README and its pyproject.toml of plugins.md, by file name."""
    files = {
        body.split("\n")[0].removeprefix("# "): body
        for _, body in blocks("python", [ROOT / "README.md"])
        if body.startswith("# aang_shuffle/")
    }
    (project,) = [
        body
        for _, body in blocks("toml", [ROOT / "docs" / "plugins.md"])
        if "[build-system]" in body
    ]
    return {**files, "pyproject.toml": project, "aang_shuffle/__init__.py": ""}


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory) -> Path:
    """The example plugin, built and installed into a folder of its own; aang is not touched."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, body in tutorial_files().items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(body, encoding="utf-8")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--disable-pip-version-check", "--target", target, source),
        ],
        check=True,
        timeout=300,
    )
    return target


@pytest.mark.parametrize(("space", "count"), [("td", 30), ("td+ed", 50)])
def test_the_readmes_primitive_composes_with_what_is_there(tutorial, space, count):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "aang_cli", "list-objectives"),
            *("--space", space, "--with", "shuffle", "--json"),
        ],
        env={**os.environ, "PYTHONPATH": str(tutorial)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(done.stdout)) == count


def test_the_readmes_primitive_does_what_it_says():
    space: dict = {}
    exec(tutorial_files()["aang_shuffle/shuffle.py"], space)
    shuffle = space["Shuffle"](
        Binding(task=tiny_task(), backbone=tiny_backbone(), options={"share": 0.5})
    )
    ids = torch.arange(100, 140)
    special = torch.zeros(40, dtype=torch.bool)
    special[[0, 19, 20, 39]] = True
    packed = Packed(
        inputs={"input_ids": ids},
        original={"input_ids": ids},
        special=special,
        marks={},
        offsets=torch.tensor([0, 20, 40]),
        selected=torch.zeros(40, dtype=torch.bool),
        labels=[None, None],
        origins=[Origin("task", 0, 0), Origin("task", 1, 1)],
    )
    changed = shuffle.apply(packed, torch.Generator().manual_seed(1))
    new = changed.inputs["input_ids"]
    assert changed.selected.any()
    assert not (changed.selected & special).any()
    assert torch.equal(new[~changed.selected], ids[~changed.selected])
    assert not torch.equal(new, ids)
    assert torch.equal(new.sort().values, ids)
    assert torch.equal(ids, torch.arange(100, 140))  # the input is untouched


def test_every_name_of_the_core_that_the_documents_use_is_public():
    used = {
        node.attr
        for _, body in blocks("python")
        for node in ast.walk(ast.parse(body))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "aang"
    }
    assert "run" in used
    assert not [name for name in sorted(used) if not hasattr(aang_core, name)]


def test_every_file_and_name_in_the_map_exists():
    text = FENCE.sub("", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    found = [
        path
        for folder in ("aang_core", "plugins", "cli", "docs", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".md", ".in")
    ]
    places = [f"/{path.relative_to(ROOT).as_posix()}" for path in found]
    words = {word for path in found for word in re.findall(r"\w+", path.read_text("utf-8"))}
    spans = set(re.findall(r"`([\w./-]+)`", text))
    files = {span for span in spans if span.endswith(".py")}
    folders = {span for span in spans if span.endswith("/")}
    dotted = {span for span in spans - files if re.fullmatch(r"[A-Za-z]\w*\.[a-z_]+", span)}
    assert len(files) > 60
    assert not [span for span in files if not any(p.endswith(f"/{span}") for p in places)]
    assert not [span for span in folders if not any(f"/{span}" in p for p in places)]
    assert not [span for span in dotted if not set(span.split(".")) <= words]
