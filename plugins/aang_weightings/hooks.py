"""Weighting rules: Algorithm 1 and its variants, rules against noise and overlap, and the control.

Records only; the code lies beside this file.
"""

from __future__ import annotations

from collections.abc import Iterable

from aang_core.registry.hookspecs import hookimpl
from aang_core.registry.records import Weighting

_DERY = "Dery et al., AANG, ICLR 2023"


@hookimpl
def aang_weightings() -> Iterable[Weighting]:
    return [
        Weighting(
            name="aang",
            summary="Algorithm 1: a logit for each objective and each primitive",
            factory="aang_weightings.algorithm:aang",
            source=_DERY,
        ),
        Weighting(
            name="tartan",
            summary="Algorithm 1 with a logit for each objective alone",
            factory="aang_weightings.algorithm:tartan",
            source="Dery et al., META-TARTAN, ICLR 2022",
        ),
        Weighting(
            name="exponentiated",
            summary="Mirror descent on the simplex of the observed objectives",
            factory="aang_weightings.algorithm:exponentiated",
            source="Fan et al., DoGE, ICML 2024",
        ),
        Weighting(
            name="confident",
            summary="Logits move by the mean alignment less its standard error",
            factory="aang_weightings.confident:Confident",
            check_options="aang_weightings.confident:check",
            options={"lr": 0.2, "errors": 1.0, "start": 0.15, "looks": 5, "forget": 0.98},
        ),
        Weighting(
            name="budget",
            summary="Fixed shares for groups of objectives; weights learn within each",
            factory="aang_weightings.budget:Budget",
            check_options="aang_weightings.budget:check",
            options={"by": "data", "shares": {}},
        ),
        Weighting(
            name="bandit",
            summary="EXP3 over the objectives, with exploration that never ends",
            factory="aang_weightings.bandit:Bandit",
            source="Albalak et al., FLAD, NeurIPS 2023; Auer et al., SIAM J. Comput. 2002",
        ),
        Weighting(
            name="hindsight",
            summary="Credit to what moved the encoder the way that lowered the dev loss",
            factory="aang_weightings.hindsight:Hindsight",
            check_options="aang_weightings.hindsight:check",
            options={"steps": 10},
        ),
        Weighting(
            name="fork-merge",
            summary="Train each stretch without and with the objectives, and merge as dev prefers",
            factory="aang_core.method.weights.rules:Equal",
            check_options="aang_weightings.algorithm:check_shares",
            options={"shares": [0.0, 0.25, 0.5, 0.75, 1.0], "rows": 128},
            forks=True,
            source="Jiang et al., ForkMerge, NeurIPS 2023",
        ),
        Weighting(
            name="equal",
            summary="Weights stay as they began; alignments are recorded: the control",
            factory="aang_core.method.weights.rules:Equal",
            source="Kurin et al., NeurIPS 2022; Xin et al., NeurIPS 2022",
        ),
    ]
