"""Run directories written by hand, for what reads finished runs."""

import json
from pathlib import Path

import attrs
import numpy as np

from aang_core.analysis.history import END_TASK
from aang_core.config.file import dump_config
from aang_core.config.settings import RunConfig
from aang_core.data.metrics import score
from aang_core.rundir.report import RunReport, SeedReport, write_json

IDS = (
    "task/bert-op/bidirectional/denoise",
    "task/mask/left-to-right/denoise",
    "task/no-op/bidirectional/end-task",
    "task/replace/random-factorized/end-task",
)
NAMES = ("no", "yes", "<b>maybe</b>")
GOLD = [i % 3 for i in range(40)]


def history_lines(seed: int, steps: int = 60, sampled: int = 3) -> list[dict]:
    """Steps in which the first objective helps and the second one hurts."""
    random = np.random.default_rng(seed)
    lines = []
    for step in range(1, steps + 1):
        part = sorted(random.permutation(len(IDS))[:sampled].tolist())
        logits = np.array([[2.0, -2.0, 0.0, 0.0][k] * step / steps for k in part])
        weights = np.exp(logits) / np.exp(logits).sum()
        ids = [IDS[k] for k in part]
        signal = {IDS[k]: float([0.3, -0.3, 0.0, 0.01][k] + random.normal(0, 0.1)) for k in part}
        lines.append(
            {
                "step": step,
                "losses": {END_TASK: 2.0 / step, **dict.fromkeys(ids, 3.0 - step / steps)},
                "weights": dict(zip(ids, weights.tolist(), strict=True)),
                "alignments": {END_TASK: 0.5 + float(random.normal(0, 0.1)), **signal},
                "norms": {
                    END_TASK: 1.0 + step / steps,
                    **dict.fromkeys(ids, 2.0 + 2.0 * step / steps),
                },
                "end_task_weight": 0.5 + 0.2 * step / steps,
                "labelled_rows": 8,
                "rows": 24,
                "lr": 1e-4,
                "tokens": 500,
                "skipped": [],
            }
        )
    return lines


def answers(right: int) -> list[int]:
    """Predictions of which the first `right` are true."""
    return [g if i < right else (g + 1) % 3 for i, g in enumerate(GOLD)]


def prediction_lines(right: int, first: int = 0) -> list[dict]:
    """:param first: the text of row 0; the others follow, and begin again after the last."""
    lines = []
    for row in range(len(GOLD)):
        text = (row + first) % len(GOLD)
        gold, said = GOLD[text], answers(right)[text]
        chances = {name: 0.8 if i == said else 0.1 for i, name in enumerate(NAMES)}
        inputs = {"text": f"text {text} <script>alert({text})</script>"}
        lines.append(
            {
                "row": row,
                "label": NAMES[said],
                "probabilities": chances,
                "inputs": inputs,
                "gold": NAMES[gold],
            }
        )
    return lines


def write_run(
    path: Path,
    right: dict[int, int],
    *,
    method: str = "aang",
    tokens: int = 30_000,
    labelled: bool = True,
    changed: dict | None = None,
    config: dict | None = None,
    audit: dict | None = None,
    shift: int = 0,
    train_rows: int | None = 100,
) -> Path:
    """A finished run whose seeds predict `right[seed]` of the 40 test texts rightly.

    :param changed: entries of ``report.json`` to replace; `config`: settings beside method and seeds.
    :param shift: row i of seed s judges text i + `shift` s, as where each seed draws its own test split.
    """
    settings = {"method": method, "seeds": list(right), "space": "td", **(config or {})}
    path.mkdir(parents=True)
    (path / "config.toml").write_text(dump_config(RunConfig.from_mapping(settings)), "utf-8")
    searched = method == "aang"
    seeds = [
        attrs.evolve(
            _seed(path, seed, right, searched, tokens, labelled, shift), train_rows=train_rows
        )
        for seed in right
    ]
    report = RunReport(
        task="sample",
        space="td" if searched else "",
        method=method,
        model="scratch:tiny",
        metric="accuracy",
        seeds=tuple(seeds),
        remarks=("a remark & <i>more</i>",),
        plugins={"text": "aang 0.1"},
        directory=path,
        reads=("text",),
        audit=audit or _audit(),
    )
    write_json(path / "report.json", {**report.as_mapping(), **(changed or {})})
    return path


def _audit() -> dict:
    rows = {"train": 100, "dev": 20, "test": 40}
    counts = {"dev": 0, "test": 3}
    return {
        "splits": rows,
        "in_train": counts,
        "near": counts,
        "duplicates": dict.fromkeys(rows, 0),
        "conflicts": 0,
        "external": {},
        "fingerprint": "abc",
    }


def _seed(path, seed, right, searched, tokens, labelled, shift) -> SeedReport:
    folder = path if len(right) == 1 else path / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    lines = (
        history_lines(seed)
        if searched
        else [
            {**line, "losses": {END_TASK: 1.0}, "weights": {}, "alignments": {}, "norms": {}}
            for line in history_lines(seed)
        ]
    )
    (folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines), "utf-8")
    test = None
    if labelled:
        predicted = prediction_lines(right[seed], shift * seed)
        text = "".join(json.dumps(r) + "\n" for r in predicted)
        (folder / "predictions.jsonl").write_text(text, "utf-8")
        test = score("class", answers(right[seed]), GOLD, 3)
    weights = {
        "objectives": dict(zip(IDS, (0.4, 0.1, 0.3, 0.2), strict=True)),
        "stages": {s: {} for s in ("data", "transform", "representation", "output")},
        "end_task": 0.7,
    }
    report = SeedReport(
        seed=seed,
        steps=60,
        best_step=40,
        dev={"accuracy": 0.5, "f1": 0.4},
        test=test,
        seconds=12.0,
        peak_memory_mib=100.0,
        engine="fused" if searched else "plain",
        objectives=len(IDS) if searched else 0,
        weights=weights if searched else {},
        cost={
            "labelled_rows": 480,
            "rows": 1440,
            "tokens": tokens,
            "skipped_steps": 0,
            "cpu_seconds": 11.0,
        },
        evaluations=[
            {"step": s, "accuracy": 0.3 + s / 300, "f1": 0.2 + s / 300} for s in (20, 40, 60)
        ],
    )
    return attrs.evolve(report, test_deduplicated=test)


def write_sweep(
    path,
    runs,
    *,
    task="tasks/trec",
    method="finetune",
    dev=None,
    planned=(),
    rows=100,
    dev_rows=0,
    changed=None,
):
    """A sweep of one task: name → seed → how many of 40 test answers are right.

    :param dev: name → its score on dev. :param planned: seeds that every run has besides the finished ones.
    """
    configurations, trials = [], []
    for name, right in runs.items():
        configurations.append({"configuration": name, "task": task})
        for seed in sorted({*right, *planned}):
            place = f"runs/{name}/seed-{seed}"
            trials.append({"configuration": name, "seed": seed, "directory": place})
            if seed in right:
                own = dict(changed or {})
                write_run(
                    path / place,
                    {seed: right[seed]},
                    method=method,
                    changed=own,
                    config={"train_rows": rows, "dev_rows": dev_rows},
                )
                if dev:
                    file = path / place / "report.json"
                    report = json.loads(file.read_text("utf-8"))
                    report["seeds"][0]["dev"]["accuracy"] = dev[name]
                    file.write_text(json.dumps(report), "utf-8")
    found = {"schema": 1, "configurations": configurations, "trials": trials}
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.json").write_text(json.dumps(found), "utf-8")
    return path
