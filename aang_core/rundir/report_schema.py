"""The schema of ``report.json``. It is checked when the file is read, because anybody may have edited it."""

from __future__ import annotations

from collections.abc import Mapping

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
)


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
    {
        "objectives": TableOf(_NUMBER),
        "stages": TableOf(TableOf(_NUMBER)),
        "end_task": _NUMBER,
    }
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
        "engine_check": _or_null(_form({"disagreement": _NUMBER, "allowed": _NUMBER})),
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
