"""Files that nobody wants to be given, by class: what is wrong, the command that meets it, what it should say."""

from __future__ import annotations

from _hostile_data import CORPORA, MODELS, TASKS
from _hostile_runs import RUNS
from _spoilt import DEEP, DIGITS, Row, text


def config(content: str | bytes, said: str) -> Row:
    return text("c.toml", content), ["run", "--config", "c.toml", "--out", "out"], said


CONFIGS: dict[str, Row] = {
    "no TOML": config("task = [", "not valid TOML"),
    "a binary file": config(bytes(range(256)), "not UTF-8"),
    "UTF-16": config("seeds = [0]".encode("utf-16"), "not UTF-8"),
    "null characters": config("task = 'a\0b'", "not valid TOML"),
    "an escaped null character": config('task = "a\\u0000b"', "without null characters"),
    "a folder": (
        lambda f: (f / "c.toml").mkdir(),
        ["run", "--config", "c.toml"],
        "cannot read the configuration",
    ),
    "a link to itself": (
        lambda f: (f / "c.toml").symlink_to("c.toml"),
        ["run", "--config", "c.toml"],
        "cannot read the configuration",
    ),
    "nested too deeply": config(f"seeds = {DEEP}", "nested too deeply"),
    "more digits than Python converts": config(f"seeds = [{DIGITS}]", "not valid TOML"),
    "a key twice": config("task = 'a'\ntask = 'b'", "not valid TOML"),
    "a number for a table": config("training = 3", "must be a table"),
    "a table for a number": config("[training.lr]\nx = 1", "c.toml:1: `training.lr` must be"),
    "a list for a table": config("[[meta]]\nengine = 'fused'", "`meta` must be a table"),
    "a text for a list": config("seeds = '0'", "must be a list"),
    "a date for a rate": config("training.lr = 1979-05-27", "`training.lr` must be a number"),
    "true for a seed": config("seeds = [true]", "must be a whole number"),
    "no seed": config("seeds = []", "at least one seed"),
    "an infinite rate": config("training.lr = inf", "`training.lr` must be a number above 0"),
    "numbers for primitives": config(
        "primitives = { mask = 3 }", "`primitives.mask` must be a table"
    ),
    "numbers for corpora": config(
        "external = { in-domain = 3 }", "`external.in-domain` must be a text"
    ),
    "options of nobody": config("[primitives.nobody]\nx = 1", "unknown primitive 'nobody'"),
    "control characters": config('method = "\\u001b[31mred"', "must be one of"),
    "an unknown key like HTML": config('"<script>" = 1', "is no setting"),
    "ten thousand unknown keys": config(
        "\n".join(f"k{i} = {i}" for i in range(10_000)), "10000 faults"
    ),
    "a negative seed by --set": (lambda _: None, ["run", "--set", f"seeds=[{DIGITS}]"], "seeds"),
    "a nested --set": (lambda _: None, ["run", "--set", f"seeds={DEEP}"], "seeds"),
    "half a character": (lambda _: None, ["run", "--task", "a\udcffb"], "all of it UTF-8"),
}


def space(content: str | bytes, said: str) -> Row:
    return text("s.toml", content), ["list-objectives", "--space", "s.toml"], said


def block(**changed: str) -> str:
    """A block of which one list is something else."""
    lists = {
        "data": '["task"]',
        "transform": '["mask"]',
        "representation": '["bidirectional"]',
        "output": '["denoise"]',
        **changed,
    }
    return "[[block]]\n" + "".join(f"{name} = {value}\n" for name, value in lists.items() if value)


SPACES: dict[str, Row] = {
    "empty": space("", "at least one [[block]] table"),
    "missing": (lambda _: None, ["list-objectives", "--space", "no.toml"], "cannot read"),
    "no TOML": space("[[block", "not valid TOML"),
    "binary": space(bytes(range(256)), "not valid TOML"),
    "nested too deeply": space(f"block = {DEEP}", "nested too deeply"),
    "too many digits": space(f"block = {DIGITS}", "not valid TOML"),
    "a folder": (
        lambda f: (f / "s.toml").mkdir(),
        ["list-objectives", "--space", "s.toml"],
        "cannot read",
    ),
    "a link to nowhere": (
        lambda f: (f / "s.toml").symlink_to("nowhere"),
        ["list-objectives", "--space", "s.toml"],
        "cannot read",
    ),
    "a block that is no list": space("block = 3", "at least one [[block]] table"),
    "a block of numbers": space("block = [1, 2]", "`block[0]` must be a table (got 1)"),
    "a stage that is a text": space(block(output='"denoise"'), "at least one primitive"),
    "a stage of numbers": space(block(output="[1]"), "`block[0].output[0]` must be a text"),
    "a stage left out": space(block(output=""), "must be a list of at least one primitive"),
    "an empty stage": space(block(output="[]"), "must be a list of at least one primitive"),
    "a primitive of another stage": space(block(output='["mask"]'), "belongs to the stage"),
    "an unknown primitive": space(block(output='["denois"]'), "did you mean 'denoise'"),
    "a name like HTML": space(block(output='["<b>"]'), "unknown primitive '<b>'"),
    "a name that steers terminals": space(
        block(output='["\\u001b[31mred"]'), "unknown primitive '\\x1b[31mred'"
    ),
    "a space's name that is a path": space('name = "../../evil"\n' + block(), "../../evil"),
    "an unknown key": space("blok = 1\n" + block(), "did you mean 'block'"),
    "optional data that no block has": space("optional = ['in-domain']\n" + block(), "optional"),
}


TABLE: dict[str, dict[str, Row]] = {
    "configs": CONFIGS,
    "spaces": SPACES,
    "tasks": TASKS,
    "corpora": CORPORA,
    "models": MODELS,
    "runs": RUNS,
}
