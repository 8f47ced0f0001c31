"""House rules that a machine can check, over every tracked file."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from aang_core import __version__

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *(
        "aang_core",
        "plugins/aang_loggers",
        "plugins/aang_selectors",
        "plugins/aang_text",
        "plugins/aang_weightings",
        "plugins/aang-vision/aang_vision",
    ),
    "cli/aang_cli",
)
LONGEST_FILE = 450
LONGEST_FUNCTION = 40  # without docstring, comments and blank lines
FULLEST_FOLDER = 10  # beyond it, join what is read together, or make a folder of a part
FULL_FOLDERS = {"cli/aang_cli"}  # a file a command, each found by its command's name


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


SOURCE_MODULES = modules(*SOURCES)
ALL_MODULES = modules(*SOURCES, "tests", "benchmarks")


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def places(path: Path, nodes) -> list[str]:
    return [f"{shown(path)}:{node.lineno}" for node in nodes]


def code_lines(path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function that hold code of its own."""
    lines = path.read_text(encoding="utf-8").splitlines()
    skipped: set[int] = set()
    for node in ast.walk(function):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            skipped.update(range(node.lineno, node.end_lineno + 1))
    body = range(function.lineno, function.end_lineno + 1)
    return sum(
        bool(text := lines[number - 1].strip()) and not text.startswith("#")
        for number in body
        if number not in skipped
    )


@pytest.fixture(scope="module")
def tracked(root) -> list[Path]:
    """Every file that git knows."""
    if not (root / ".git").exists():
        pytest.skip("needs a git checkout, to know which files are tracked")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    return [root / name for name in listed.split("\0") if name and (root / name).is_file()]


@pytest.mark.parametrize("path", ALL_MODULES, ids=shown)
def test_a_module_says_what_it_is_and_keeps_within_its_budget(path):
    assert ast.get_docstring(tree(path)), "the module has no docstring"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", SOURCE_MODULES, ids=shown)
def test_a_function_is_read_at_a_glance(path):
    """But for hooks, whose bodies are lists of records: data, not code."""
    functions = [
        node
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and "hookimpl" not in [ast.unparse(decorator) for decorator in node.decorator_list]
    ]
    sizes = {node.name: code_lines(path, node) for node in functions}
    assert not {name: size for name, size in sizes.items() if size > LONGEST_FUNCTION}


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCE_MODULES}), ids=shown)
def test_a_folder_is_looked_through_at_a_glance(folder):
    files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert shown(folder) in FULL_FOLDERS or len(files) <= FULLEST_FOLDER


@pytest.mark.parametrize("path", SOURCE_MODULES, ids=shown)
def test_no_exception_is_swallowed(path):
    handlers = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    bare = [node for node in handlers if node.type is None]
    silent = [
        node
        for node in handlers
        if ast.unparse(node.type or ast.Constant(0)) in {"Exception", "BaseException"}
        and all(isinstance(part, ast.Pass) for part in node.body)
    ]
    assert not places(path, bare + silent)


def _narrows(node: ast.Assert) -> bool:
    """``assert x is not None``: tells the type checker what the code above has ensured."""
    return ast.unparse(node.test).endswith(" is not None") and node.msg is None


@pytest.mark.parametrize("path", SOURCE_MODULES, ids=shown)
def test_user_input_is_not_checked_with_assert(path):
    """`python -O` drops asserts, and their message tells a user nothing."""
    asserts = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)]
    assert not places(path, (node for node in asserts if not _narrows(node)))


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.split(".")[0]}
    return set()


def _is_unsafe_call(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    loads = ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True"
    return loads or given.get("trust_remote_code", "False") != "False"


@pytest.mark.parametrize("path", SOURCE_MODULES, ids=shown)
def test_no_file_is_ever_executed(path):
    """No pickle, in any of its forms, and no code out of a checkpoint."""
    pickles = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    unsafe = [
        node for node in ast.walk(tree(path)) if _imported(node) & pickles or _is_unsafe_call(node)
    ]
    assert not places(path, unsafe)


@pytest.mark.parametrize("path", modules("aang_core"), ids=shown)
def test_the_core_knows_no_text_and_no_command_line(path):
    outside = {
        "aang_text",
        "aang_vision",
        "aang_cli",
        "click",
        "rich",
        "transformers",
        "tokenizers",
        "pysbd",
    }
    assert not places(path, (node for node in ast.walk(tree(path)) if _imported(node) & outside))


def test_the_version_stands_in_one_place(root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    holders = [
        shown(path) for path in SOURCE_MODULES if "__version__ = " in path.read_text("utf-8")
    ]
    assert holders == ["aang_core/__init__.py"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", __version__)


def test_the_citation_names_this_version(root):
    text = (root / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", text, re.MULTILINE) == [__version__]


def test_the_changelog_is_open_for_entries(root):
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"


def test_no_file_names_a_machine_or_a_registry(tracked):
    """What works here must work anywhere; indexes are the business of each machine's own settings."""
    folders = "|".join(("work", "root", "home", "Users", "opt", "mnt"))
    hosts = "|".join(
        ("pypi" + r"\.org", "python" + "hosted", "download" + r"\.pytorch", "index" + "-url")
    )
    machine = re.compile(rf"(?<![\w.:/~-])/(?:{folders})/\w|{hosts}")
    found = [
        f"{shown(path)}:{number}"
        for path in tracked
        if path.suffix not in {".png", ".parquet"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert not found


def test_every_requirement_of_the_project_is_pinned_for_the_gate(root):
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *data["project"]["dependencies"],
        *data["project"]["optional-dependencies"]["quickstart"],
        *data["dependency-groups"]["dev"],
        *data["dependency-groups"]["docs"],
    ]
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins)
    assert len(pins) == len({pin.split("==")[0] for pin in pins})
    names = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in wanted}
    assert not names - {pin.split("==")[0] for pin in pins}


def test_people_and_machines_run_the_same_gate(root):
    script = root / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("exec make test")
