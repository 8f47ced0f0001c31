"""Bad run directories: what is wrong, the command that meets it, what it should say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _runs import write_run
from _spoilt import DEEP, Row, text
from _tasks import write_task


def run(spoil: Callable[[Path], Any], said: str, *command: str) -> Row:
    """A good finished run of which something is spoilt."""

    def prepare(folder: Path) -> None:
        write_run(folder / "run", {0: 30, 1: 28})
        spoil(folder / "run")

    return prepare, [*(command or ("report",)), "run", *_OUT.get(command[:1], [])], said


_OUT = {(): ["--out", "page.html"], ("report",): ["--out", "page.html"]}


def report(**changed: Any) -> Callable[[Path], Any]:
    """Entries of ``report.json`` replaced."""

    def spoil(folder: Path) -> None:
        path = folder / "report.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changed}), "utf-8")

    return spoil


def seed(**changed: Any) -> Callable[[Path], Any]:
    """Entries of the first seed in ``report.json`` replaced."""

    def spoil(folder: Path) -> None:
        whole = json.loads((folder / "report.json").read_text("utf-8"))
        whole["seeds"][0].update(changed)
        (folder / "report.json").write_text(json.dumps(whole), "utf-8")

    return spoil


def history(content: str | bytes) -> Callable[[Path], Any]:
    return text("seed-0/history.jsonl", content)


def _circle(folder: Path) -> None:
    (folder / "report.json").unlink()
    (folder / "report.json").symlink_to("report.json")


STEP = (
    '{"step": 1, "losses": %s, "weights": {}, "alignments": {}, "norms": {}, "end_task_weight": 1}'
)

RUNS: dict[str, Row] = {
    "missing": (lambda _: None, ["report", "nowhere"], "is no run directory"),
    "a file": (text("run", "a"), ["compare", "run", "run"], "is no run directory"),
    "a link to itself": (lambda f: (f / "run").symlink_to("run"), ["report", "run"], "run"),
    "an empty folder": (lambda f: (f / "run").mkdir(), ["report", "run"], "no finished run"),
    "a report that is none": run(text("report.json", "{"), "report.json is damaged"),
    "a binary report": run(text("report.json", bytes(range(256))), "report.json is damaged"),
    "a list as report": run(text("report.json", "[1]"), "report.json is damaged"),
    "a report nested too deeply": run(text("report.json", DEEP), "nested too deeply"),
    "a report in a circle": run(_circle, "report.json is damaged"),
    "a report of the future": run(report(schema=2), "has the schema 2"),
    "a schema that is none": run(report(schema="<b>"), "has the schema '<b>'"),
    "no seeds": run(report(seeds=[]), "must be a list of at least one seed"),
    "seeds that are none": run(report(seeds=[1, "a"]), "`seeds[0]` must be a table"),
    "a seed's name that is a path": run(
        seed(seed="../../x"), "`seeds[0].seed` must be a whole number (got '../../x')"
    ),
    "a score that is a text": run(seed(test={"accuracy": "high"}), "seeds[0].test.accuracy"),
    "weights that are none": run(report(weights=None), "`weights` must be a table"),
    "a seed's weights without objectives": run(
        seed(weights={"end_task": 1.0}), "`seeds[0].weights.objectives` is missing"
    ),
    "a seed without its memory": run(
        seed(peak_memory_mib=None), "`seeds[0].peak_memory_mib` must be a number"
    ),
    "a summary that is none": run(report(summary=[]), "`summary` must be a table"),
    "remarks that are none": run(report(remarks="x"), "`remarks` must be a list"),
    "no configuration": run(lambda f: (f / "config.toml").unlink(), "has no config.toml"),
    "a configuration that is none": run(text("config.toml", "["), "not valid TOML"),
    "no history": run(lambda f: (f / "seed-0" / "history.jsonl").unlink(), "the run is damaged"),
    "a history that is none": run(history("{"), "history.jsonl:1 is damaged"),
    "a binary history": run(history(bytes(range(256))), "is damaged"),
    "a history of numbers": run(history("1\n2\n"), "is damaged"),
    "a history without losses": run(history('{"step": 1}\n'), "is damaged"),
    "a loss that is a text": run(history(STEP % '{"end-task": "low"}'), "is damaged"),
    "a loss of too many digits": run(history(STEP % f'{{"end-task": 1{"0" * 400}}}'), "is damaged"),
    "an id that is none": run(history(STEP % '{"<script>": 1}'), "is damaged"),
    "predictions that are none": run(
        text("seed-0/predictions.jsonl", "{"), "predictions.jsonl:1 is damaged"
    ),
    "binary predictions": run(
        text("seed-0/predictions.jsonl", bytes(range(256))), "predictions.jsonl is damaged"
    ),
    "a comparison with itself": run(lambda _: None, "given twice", "compare", "run"),
    "predictions of a run without a model": (
        lambda f: (write_run(f / "run", {0: 30}), (f / "x.txt").write_text("a")),
        ["predict", "run", "x.txt"],
        "is missing",
    ),
    "weights of a run that is none": (
        lambda f: (write_task(f / "boxes"), (f / "w.json").write_text(DEEP)),
        ["run", "--task", "boxes", "--weights", "w.json", "--model", "scratch:tiny"],
        "nested too deeply",
    ),
    "to resume without a configuration": (
        lambda f: (f / "run").mkdir(),
        ["run", "--resume", "--out", "run"],
        "no run to resume",
    ),
    "to resume a binary configuration": (
        lambda f: ((f / "run").mkdir(), (f / "run/config.toml").write_bytes(b"\xff")),
        ["run", "--resume", "--out", "run"],
        "not UTF-8",
    ),
    "a directory that cannot be made": (
        lambda f: (write_task(f / "boxes"), (f / "file").write_text("")),
        ["run", "--task", "boxes", "--model", "scratch:tiny", "--out", "file/out"],
        "cannot write",
    ),
    "a directory in a circle": (
        lambda f: (write_task(f / "boxes"), os.symlink("out", f / "out")),
        ["run", "--task", "boxes", "--model", "scratch:tiny", "--out", "out"],
        "out",
    ),
}
