"""Algorithm 1 under its names, and fixed equal weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from aang_core.method.weights.rules import AlgorithmOne, RuleBinding


def aang(binding: RuleBinding) -> AlgorithmOne:
    """With the choices of ``meta``: a logit for each primitive beside those of the objectives, unless it says not."""
    return AlgorithmOne(binding)


def tartan(binding: RuleBinding) -> AlgorithmOne:
    """Without factors."""
    return _with(binding, factored=False)


def exponentiated(binding: RuleBinding) -> AlgorithmOne:
    """With ``meta.logit_step = "exponentiated"``."""
    return _with(binding, logit_step="exponentiated")


def _with(binding: RuleBinding, **meta: Any) -> AlgorithmOne:
    config = attrs.evolve(binding.config, meta=attrs.evolve(binding.config.meta, **meta))
    return AlgorithmOne(attrs.evolve(binding, config=config))


def check_shares(options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the options of ``fork-merge``."""
    shares = options["shares"]
    numbers = all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in shares)
    if not numbers or shares[:1] != [0] or shares[-1:] != [1] or shares != sorted(set(shares)):
        yield f"shares must be numbers that rise from 0 to 1 (got {shares})"
    if options["rows"] < 0:
        yield f"rows must be at least 0, 0 for all of dev (got {options['rows']})"
