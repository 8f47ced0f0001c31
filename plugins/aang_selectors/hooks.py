"""Selectors: by a discriminator, by neighbours, by gradients, and the random controls.

Records only; the code lies beside this file.
"""

from __future__ import annotations

from collections.abc import Iterable

from aang_core.registry.hookspecs import hookimpl
from aang_core.registry.records import Selector

FASTMTL = "FastMTL, Findings of EMNLP 2021"
_TRAINING = {
    "epochs": 5,
    "batch_rows": 32,
    "lr": 1e-4,
    "head_lr": 1e-3,
    "warmup": 0.1,
    "pooling": "mean",
}


@hookimpl
def aang_selectors() -> Iterable[Selector]:
    return [
        Selector(
            name="discriminator-bce",
            summary="Probability of being the target's, by a sigmoid a task with positive weights",
            factory="aang_selectors.discriminator:sigmoids",
            options=_TRAINING,
            source=FASTMTL,
        ),
        Selector(
            name="discriminator-ce",
            summary="Probability of being the target's, by a softmax over the tasks",
            factory="aang_selectors.discriminator:softmax",
            options=_TRAINING,
            source=FASTMTL,
        ),
        Selector(
            name="embedding",
            summary="Mean cosine to the nearest of the target's training examples",
            factory="aang_selectors.embedding:Embedding",
            options={"neighbours": 5, "pooling": "mean"},
        ),
        Selector(
            name="gradient",
            summary="Alignment of each example's gradient with the target's dev gradient",
            factory="aang_selectors.gradient:Gradients",
            options={
                "objective": "bert-op/bidirectional/denoise",
                "head_steps": 100,
                "head_lr": 1e-3,
                "head_rows": 32,
                "dev_rows": 500,
                "norm_rows": 32,
            },
            source="Xia et al., LESS, ICML 2024; Pruthi et al., TracIn, NeurIPS 2020",
        ),
        Selector(
            name="random",
            summary="A random order of all pools together: the control for any selection",
            factory="aang_selectors.controls:Random",
            control="random",
        ),
        Selector(
            name="random-matched",
            summary="Random rows, at every rank of the task that another selection has there",
            factory="aang_selectors.controls:RandomMatched",
            options={"like": ""},
            control="random-matched",
        ),
    ]
