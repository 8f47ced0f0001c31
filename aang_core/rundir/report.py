"""The end of a run. In: the recorded results. Out: `RunReport`, written as ``report.json``."""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs

from aang_core import __version__
from aang_core.config.schema import (
    Anything,
    Integer,
    ListOf,
    Null,
    Number,
    OneOf,
    Rule,
    Table,
    TableOf,
    Text,
    faults_of,
)
from aang_core.errors import RunError
from aang_core.files import json_of, write_text
from aang_core.registry.records import STAGES

SCHEMA = 1
_LIBRARIES = ("torch", "transformers", "datasets")


@attrs.frozen(kw_only=True)
class SeedReport:
    """What one seed ended with. Scores are fractions.

    :param dev: every metric of the chosen checkpoint on the dev rows that chose it.
    :param test: the same on test, read once; None where test has no labels.
    :param test_deduplicated: the same on the test rows that do not stand in train; None where all do not.
    :param weights: ``objectives``, ``stages`` and ``end_task`` at the last step; empty for methods that end with
        the end-task alone (finetune, pretrain-finetune), where nothing is left to weigh.
    :param cost: labelled rows, rows and tokens of training, skipped steps, CPU-seconds.
    :param engine_check: ``disagreement`` of the one-backward engine with the loop on the first batch, and what is
        ``allowed``; None where nothing was compared.
    :param alignment_layers: how many of the encoder's layers were ``used`` for alignments and norms, ``of`` how many
        (embeddings are one); None without alignments, and in reports of earlier versions.
    :param train_rows: labelled rows of its training split; None in reports of earlier versions.
    :param head_parameters: the heads' parameters by name: ``pretrained`` trained at the encoder's learning rate,
        ``new`` at the heads'; None in reports of earlier versions.
    :param alignments: of each objective that the search observed, the ``mean`` over the run, its standard ``error``
        (None after one step) and the ``steps`` that observed it; None in reports of earlier versions.
    :param merges: of a forked run the ``step``, the ``share`` λ that dev chose and the dev ``losses`` by share of each
        merge; None for any other, and in reports of earlier versions.
    :param refit: ``steps``, ``rows`` and what is ``said`` of the training on train and dev (`refit.account_of`), whose
        model is exported and scored on test; `dev` is then that of the model before. None where there was none.
    :param race: what `race.verdict` says, where the seed was a race of candidates. The cost is that of all, and
        everything else that of the one that was kept.
    :param guard: what `guard.verdict` says, where the run was guarded; scores are those of the model that was kept.
    """

    seed: int
    steps: int
    best_step: int
    dev: Mapping[str, float]
    test: Mapping[str, float] | None
    seconds: float
    peak_memory_mib: float
    engine: str
    objectives: int
    weights: Mapping[str, Any]
    cost: Mapping[str, float]
    evaluations: Sequence[Mapping[str, float]]
    remarks: Sequence[str] = ()
    test_deduplicated: Mapping[str, float] | None = None
    engine_check: Mapping[str, float] | None = None
    alignment_layers: Mapping[str, int] | None = None
    guard: Mapping[str, Any] | None = None
    race: Mapping[str, Any] | None = None
    head_parameters: Mapping[str, Sequence[str]] | None = None
    train_rows: int | None = None
    alignments: Mapping[str, Mapping[str, float | None]] | None = None
    merges: Sequence[Mapping[str, Any]] | None = None
    refit: Mapping[str, Any] | None = None


@attrs.frozen(kw_only=True)
class RunReport:
    """A whole run; `as_mapping` is the contract of ``report.json``.

    :param reads: the task's input columns, by the names that the encoder has for them.
    :param directory: where its files lie (the model in ``model/``, or ``seed-N/model/``); not part of ``report.json``.
    :param control: the same of the control trained beside it, whose weights were shuffled.
    :param against: how it compares with the baseline trained beside it (`answer.helped`), and that one's ``directory``;
        empty where there is none. Not part of ``report.json`` either: a baseline may come later.
    :param audit: what `audit.audit_task` found in the task's data.
    """

    task: str
    space: str
    method: str
    model: str
    metric: str
    reads: tuple[str, ...]
    seeds: tuple[SeedReport, ...]
    remarks: tuple[str, ...]
    plugins: Mapping[str, str]
    directory: Path
    audit: Mapping[str, Any] = attrs.field(factory=dict)
    against: Mapping[str, Any] = attrs.field(factory=dict)
    control: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def summary(self) -> dict[str, Any]:
        """As in `summary_of`."""
        return summary_of(self.seeds, self.metric)

    @property
    def weights(self) -> dict[str, Any]:
        """As in `mean_weights`."""
        return mean_weights(self.seeds)

    @property
    def agreement(self) -> float | None:
        """As in `weights_agreement`."""
        tables = [seed.weights.get("objectives", {}) for seed in self.seeds]
        return weights_agreement(self.method, tables)

    def as_mapping(self) -> dict[str, Any]:
        """Plain values, in the order in which people read them."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "space": self.space,
            "method": self.method,
            "model": self.model,
            "metric": self.metric,
            "reads": list(self.reads),
            "objectives": self.seeds[0].objectives if self.seeds else 0,
            "engine": self.seeds[0].engine if self.seeds else "",
            "seeds": [attrs.asdict(seed) for seed in self.seeds],
            "summary": self.summary,
            "weights": self.weights,
            "weights_agreement": self.agreement,
            "remarks": list(self.remarks),
            "audit": dict(self.audit),
            "versions": versions(),
            "plugins": dict(self.plugins),
        }


def summary_of(seeds: Sequence[SeedReport], metric: str) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds, of the task's metric and of every other one, by split."""
    return {
        split: _spread([getattr(s, split) for s in seeds], metric)
        for split in ("dev", "test", "test_deduplicated")
        if split != "test_deduplicated" or any(s.test_deduplicated for s in seeds)
    }


def mean_weights(seeds: Sequence[SeedReport]) -> dict[str, Any]:
    """The learned weights, averaged over seeds; none, and λ = 1, for methods that end with the end-task alone."""
    learned = [seed.weights for seed in seeds if seed.weights]
    if not learned:
        return {"objectives": {}, "stages": {stage: {} for stage in STAGES}, "end_task": 1.0}
    return {
        "objectives": mean_table([w["objectives"] for w in learned]),
        "stages": {stage: mean_table([w["stages"][stage] for w in learned]) for stage in STAGES},
        "end_task": statistics.fmean(w["end_task"] for w in learned),
    }


def weights_agreement(method: str, tables: Sequence[Mapping[str, float]]) -> float | None:
    """How far seeds agree on which objectives are good: Spearman's rank correlation, the mean over all pairs of seeds.

    :param tables: of each seed the weights at the end, by objective; a pair is judged by the objectives that both have.
    :returns: None for a method that learns none, and where no two seeds have weights that differ; nor does it count
        for agreement that two seeds have kept the very weights that they began with.
    """
    found = []
    for first, second in combinations(tables if method != "static" else (), 2):
        if first == second:
            continue
        names = sorted(first.keys() & second.keys())
        pair = [[table[name] for name in names] for table in (first, second)]
        if all(len(set(values)) > 1 for values in pair):
            from scipy.stats import spearmanr  # half a second, which a single seed is spared

            found.append(float(spearmanr(*pair).statistic))
    return statistics.fmean(found) if found else None


def engine_said(seeds: Sequence[SeedReport]) -> str:
    """Which engine ran, over which layers, and what its check found: of several seeds, the largest disagreement."""
    engines = " and ".join(dict.fromkeys(seed.engine for seed in seeds))
    layers = seeds[0].alignment_layers if seeds else None
    if layers is not None and layers["used"] < layers["of"]:
        engines += f", alignments from {layers['used']} of {layers['of']} layers"
    checks = [seed.engine_check for seed in seeds if seed.engine_check is not None]
    if not checks:
        return engines
    worst = max(checks, key=lambda check: check["disagreement"])
    gap, allowed = worst["disagreement"], worst["allowed"]
    held = "agrees with the loop" if gap <= allowed else "disagreed with the loop"
    return f"{engines}; first batch: one backward pass {held} to {gap:.0e} ({allowed:.0e} allowed)"


def versions() -> dict[str, str]:
    """aang, Python and the libraries that numbers depend on."""
    found = {name: version(name) for name in _LIBRARIES}
    return {"aang": __version__, "python": platform.python_version(), **found}


def mean_table(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Weights by name, averaged; what a table lacks, as where a race kept another candidate, has the weight 0 there."""
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: statistics.fmean(table.get(name, 0.0) for table in tables) for name in names}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """``mean`` and sample standard deviation ``std`` of one number or more; ``std`` is None for a single one."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std}


def _spread(scores: Sequence[Mapping[str, float] | None], metric: str) -> dict[str, Any] | None:
    known = [score for score in scores if score is not None]
    if not known:
        return None
    metrics = {name: spread([score[name] for score in known]) for name in known[0]}
    return {**metrics[metric], "metrics": metrics}


def seed_report(raw: Mapping[str, Any]) -> SeedReport:
    """The inverse of ``attrs.asdict``; entries that this version does not know, such as a later one's, are left out."""
    known = attrs.fields_dict(SeedReport)
    return SeedReport(**{name: value for name, value in raw.items() if name in known})


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document completely or not at all; a number that is not finite becomes null."""
    write_text(path, json.dumps(strict(value), indent=2, allow_nan=False) + "\n")


def strict_line(record: Mapping[str, Any]) -> str:
    """A line of ``history.jsonl``: JSON in which a number that is not finite is null."""
    return json.dumps(strict(record), allow_nan=False) + "\n"


def strict(value: Any) -> Any:
    """Plain values with null for every number that is not finite."""
    if isinstance(value, Mapping):
        return {name: strict(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# The schema of ``report.json``. It is checked when the file is read, because anybody may have edited the file.


def _form(fields: Mapping[str, Rule], also: Mapping[str, Rule] | None = None) -> Rule:
    """A table with all of `fields`, perhaps those in `also`, and any others."""
    return Table({**fields, **(also or {})}, required=fields.keys(), others=Anything())


def _or_null(rule: Rule) -> Rule:
    return OneOf((rule, Null()))


_NUMBER, _WORDS, _NAME = Number(), ListOf(Text(empty=True), unique=False), Text(empty=True)
_SCORE = _or_null(_NUMBER)
_SCORES = TableOf(_SCORE)
_MEAN = {"mean": _SCORE, "std": _SCORE}
_SPREAD = _form({**_MEAN, "metrics": TableOf(_form(_MEAN))})
_WEIGHTS = _form(
    {"objectives": TableOf(_NUMBER), "stages": TableOf(TableOf(_NUMBER)), "end_task": _NUMBER}
)
_SEED = _form(
    {
        "seed": Integer(),
        "steps": Integer(),
        "best_step": Integer(),
        "dev": _SCORES,
        "test": _or_null(_SCORES),
        "seconds": _NUMBER,
        "peak_memory_mib": _NUMBER,
        "engine": _NAME,
        "objectives": Integer(),
        "weights": OneOf((_WEIGHTS, Table({}))),
        "cost": TableOf(_NUMBER),
        "evaluations": ListOf(_SCORES, unique=False),
        "remarks": _WORDS,
    },
    {
        "test_deduplicated": _or_null(_SCORES),
        "train_rows": _or_null(Integer()),
        "head_parameters": _or_null(_form({"pretrained": _WORDS, "new": _WORDS})),
        "alignments": _or_null(
            TableOf(_form({"mean": _SCORE, "error": _SCORE, "steps": Integer()}))
        ),
        "refit": _or_null(_form({"steps": Integer(), "rows": Integer(), "said": _NAME})),
        "merges": _or_null(
            ListOf(_form({"step": Integer(), "share": _NUMBER, "losses": _SCORES}), unique=False)
        ),
        "engine_check": _or_null(_form({"disagreement": _NUMBER, "allowed": _NUMBER})),
        "alignment_layers": _or_null(_form({"used": Integer(), "of": Integer()})),
    },
)
REPORT = _form(
    {
        **dict.fromkeys(("task", "space", "method", "model", "metric", "engine"), _NAME),
        "reads": _WORDS,
        "objectives": Integer(),
        "seeds": ListOf(_SEED, 1, "seed", unique=False),
        "summary": _form({"dev": _or_null(_SPREAD), "test": _or_null(_SPREAD)}),
        "weights": _WEIGHTS,
        "remarks": _WORDS,
        "versions": TableOf(_NAME),
        "plugins": TableOf(_NAME),
    }
)


def read_report(run: Path) -> dict[str, Any]:
    """``report.json`` of a finished run.

    :raises RunError: where it is missing, no JSON, of another schema or shape, or without a seed.
    """
    path = run / "report.json"
    try:
        report: dict[str, Any] = json_of(path.read_text(encoding="utf-8"))
        schema = report["schema"]
    except FileNotFoundError as cause:
        raise RunError(
            f"{run} holds no finished run (no report.json); run it, or go on with --resume"
        ) from cause
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise RunError(f"{path} is damaged: {cause}") from cause
    if schema != SCHEMA:
        raise RunError(f"{path} has the schema {schema!r}; this version of aang reads {SCHEMA}")
    faults = faults_of(REPORT, report)
    if faults:
        raise RunError(f"{path} is damaged: {'; '.join(faults[:5])}")
    return report
