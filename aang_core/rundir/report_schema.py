"""The form of ``report.json``. It is checked once, on reading, because anybody may have edited the file.

A form is a type, None for null, a tuple of forms of which one must fit, a list with the form of its items, a table with
the form of each named entry (``name?`` may be missing), ``{...: form}``, a table of any
names, or ``{}``, an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType
from typing import Any

Form = Any

_NUMBER = (int, float)
_NUMBER_OR_NULL = (*_NUMBER, None)
_SCORES = {...: _NUMBER_OR_NULL}
_WEIGHTS = {"objectives": {...: _NUMBER}, "stages": {...: {...: _NUMBER}}, "end_task": _NUMBER}
_MAYBE_SCORES = (_SCORES, None)
_SPREAD = {
    "mean": _NUMBER_OR_NULL,
    "std": _NUMBER_OR_NULL,
    "metrics": {...: {"mean": _NUMBER_OR_NULL, "std": _NUMBER_OR_NULL}},
}
_SEED = {
    "seed": int,
    "steps": int,
    "best_step": int,
    "dev": _SCORES,
    "test": _MAYBE_SCORES,
    "seconds": _NUMBER,
    "peak_memory_mib": _NUMBER,
    "engine": str,
    "objectives": int,
    "weights": (_WEIGHTS, {}),
    "cost": {...: _NUMBER},
    "evaluations": [_SCORES],
    "remarks": [str],
    "test_deduplicated?": _MAYBE_SCORES,
    "train_rows?": (int, None),
    "head_parameters?": ({"pretrained": [str], "new": [str]}, None),
    "engine_check?": ({"disagreement": _NUMBER, "allowed": _NUMBER}, None),
}
REPORT: Form = {
    "task": str,
    "space": str,
    "method": str,
    "model": str,
    "metric": str,
    "reads": [str],
    "engine": str,
    "objectives": int,
    "seeds": [_SEED],
    "summary": {"dev": (_SPREAD, None), "test": (_SPREAD, None)},
    "weights": _WEIGHTS,
    "remarks": [str],
    "versions": {...: str},
    "plugins": {...: str},
}


def shape_faults(value: Any, form: Form, where: str = "it") -> list[str]:
    """What of a value has not this form; empty where all has. Entries that the form does not name are let be."""
    if isinstance(form, tuple):
        tried = [shape_faults(value, each, where) for each in form]
        return min(tried, key=len)
    if form is None or isinstance(form, type):
        holds = value is None if form is None else type(value) is form  # a bool is no number here
        return [] if holds else [f"{where} is {str(value)[:40]!r}, not {_name(form)}"]
    if isinstance(form, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [f for i, v in enumerate(value) for f in shape_faults(v, form[0], f"{where}[{i}]")]
    if not isinstance(value, Mapping):
        return [f"{where} is no table"]
    if value and not form:
        return [f"{where} is not complete"]
    return _table_faults(value, form, where)


def _table_faults(
    value: Mapping[str, Any], form: Mapping[str | EllipsisType, Form], where: str
) -> list[str]:
    faults = []
    for name, inner in form.items():
        if isinstance(name, EllipsisType):
            parts = value.items()
            faults += [f for n, v in parts for f in shape_faults(v, inner, f"{where}.{n}"[:80])]
            continue
        key = name.removesuffix("?")
        if key in value:
            faults += shape_faults(value[key], inner, key if where == "it" else f"{where}.{key}")
        elif key == name:
            faults.append(f"{where} is not complete: it lacks {key!r}")
    return faults


def _name(form: type | None) -> str:
    return "null" if form is None else form.__name__
