"""The built-in spaces, and the names that the literature has for single objectives.

A space is a union of products. The primitives' declarations decide which combinations are illegal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aang_core.registry.records import Block, NamedObjective, Space
from aang_text.records import (
    AANG,
    BERT,
    DISTILLING,
    ELECTRA,
    ELMO,
    FIXMATCH,
    GPT,
    MEAN_TEACHER,
    SETFIT,
    SPANBERT,
    STILTS,
    SUPCON,
    TAPT,
    UDA,
    XLNET,
)

_TRANSFORMS = ("bert-op", "mask", "replace", "no-op")
_REPRESENTATIONS = ("bidirectional", "left-to-right", "right-to-left", "random-factorized")
_OUTPUTS = ("denoise", "end-task")

_TAUGHT: Mapping[str, Any] = {
    "method": "static",
    "training": {"mean_evaluation": "best", "final_epochs": 0},
}
"""What training with a teacher begins with: equal weights, dev judges the slow copy too, no final fine-tuning (it would
forget what the unlabelled texts taught)."""

_SMALL: Mapping[str, Any] = {"end_task_rows": 16, "auxiliary_rows": 32}
"""Rows of a step where labels are few: half the usual ones, for twice as many steps from the same tokens."""

_PROBES: Mapping[str, Any] = {"start": "tempered-probe", "finish": "probe"}
"""A probe as the last layer, before the first step and after the last; dev judges both. With 77 intents the start is
worth four points; untempered it costs up to eight where the encoder has more to learn."""

_ALL_LABELS: Mapping[str, Any] = {"refit": "all"}
"""Once dev has chosen, its labels train, too: where labels are few, dev holds as many of them as train."""

_FIGURE_2 = Block(
    data=("out-of-domain", "in-domain", "task", "neural-lm"),
    transform=("no-op", "replace", "mask", "bert-op", "noise-embeddings"),
    representation=_REPRESENTATIONS,
    output=("next-token", "real-synthetic", "denoise", "tf-idf", "end-task"),
)


def _block(*objectives: str) -> Block:
    """The smallest block that holds these objective ids."""
    stages = zip(*(objective.split("/") for objective in objectives), strict=True)
    names = [tuple(dict.fromkeys(stage)) for stage in stages]
    return Block(data=names[0], transform=names[1], representation=names[2], output=names[3])


def _aang(name: str, summary: str, data: tuple[str, ...]) -> Space:
    """One of the paper's two searched spaces: everything but the data is the same."""
    block = Block(
        data=data, transform=_TRANSFORMS, representation=_REPRESENTATIONS, output=_OUTPUTS
    )
    return Space(name=name, summary=summary, blocks=(block,), source=AANG)


def _agreement(
    name: str, summary: str, source: str, transforms: tuple[str, ...], **options: Any
) -> Space:
    """Consistency with a slow teacher on the texts without labels, with the options of one method."""
    block = Block(
        data=("unlabelled",),
        transform=transforms,
        representation=("bidirectional",),
        output=("agree",),
    )
    return Space(
        name=name,
        summary=summary,
        source=source,
        blocks=(block,),
        settings={**_TAUGHT, "primitives": {"agree": options}},
    )


def _union(name: str, summary: str, source: str, *objectives: str, **more: Any) -> Space:
    """A space of exactly these objectives, one block each. :param more: further fields of the record."""
    blocks = tuple(_block(o) for o in objectives)
    return Space(name=name, summary=summary, source=source, blocks=blocks, **more)


_TARGET_ORIENTED = {
    "method": "static",
    "training": {
        "epochs": 3,
        "auxiliary_rows": 0,
        "task_weights": "size",
        "final_epochs": 5,
        "final_lr": 1e-4,
        "final_patience": 5,
    },
    "meta": {"objectives_per_step": 0},
}
"""Training with selected data (TO-MTDNN: Kung et al., EMNLP 2021): every task by its size, three epochs together, then
five on the target alone at a learning rate that is constant, so it is lower."""


SPACES = (
    _aang("td", "The paper's AANG-TD: the task's own texts", ("task",)),
    _aang("td+ed", "The paper's AANG-TD+ED: with texts of the domain", ("task", "in-domain")),
    _union(
        "x+y+z",
        "The paper's X+Y+Z: the GPT, XLNet and BERT styles together",
        AANG,
        "task/no-op/left-to-right/denoise",
        "task/no-op/random-factorized/denoise",
        "task/bert-op/bidirectional/denoise",
    ),
    Space(
        name="few-labels",
        summary="For 50 to 500 labels: a teacher on masked texts without labels, and pairs of a class",
        source=UDA,
        blocks=(
            Block(
                data=("unlabelled", "in-domain"),
                transform=("mask",),
                representation=("bidirectional",),
                output=("agree",),
            ),
            _block("task/no-op/bidirectional/same-class"),
        ),
        optional=frozenset({"unlabelled", "in-domain"}),
        settings={
            **_TAUGHT,
            "training": {**_TAUGHT["training"], **_SMALL, **_ALL_LABELS, "pooling": "mean"},
            "heads": _PROBES,
        },
    ),
    _agreement(
        "uda",
        "Agreement with the teacher's sharpened, sure answers on changed texts",
        UDA,
        ("mask", "delete", "swap"),
        temperature=0.4,
        align=False,
        gate="fixed",
        threshold=0.8,
    ),
    _agreement(
        "mean-teacher",
        "Agreement with the teacher's answers as they are, under dropout",
        MEAN_TEACHER,
        ("no-op",),
        temperature=1.0,
        align=False,
    ),
    _agreement(
        "fixmatch",
        "The teacher's surest answers as labels of strongly changed texts",
        FIXMATCH,
        ("mask", "swap"),
        temperature=0.1,
        align=False,
        gate="fixed",
        threshold=0.95,
    ),
    Space(
        name="distil",
        summary="The answers of a larger fine-tuned classifier of your own (--teacher-model)",
        source=DISTILLING,
        blocks=(
            Block(
                data=("task", "unlabelled", "in-domain"),
                transform=("no-op", "mask"),
                representation=("bidirectional",),
                output=("distil",),
            ),
        ),
        optional=frozenset({"unlabelled", "in-domain"}),
        settings={"method": "static", "training": {"final_epochs": 0}},
    ),
    Space(
        name="setfit",
        summary="Pairs of labelled texts, of one class or of two; a probe as the last layer",
        source=SETFIT,
        blocks=(_block("task/no-op/bidirectional/same-class"),),
        settings={
            "method": "static",
            "training": {**_SMALL, **_ALL_LABELS, "pooling": "mean", "final_epochs": 0},
            "heads": _PROBES,
        },
    ),
    Space(
        name="supcon",
        summary="Labelled texts of a class closer to each other than to all others",
        source=SUPCON,
        blocks=(_block("task/no-op/bidirectional/class-contrast"),),
        settings={"method": "static", "training": {"final_epochs": 0}},
    ),
    Space(
        name="auto",
        summary="A race of the recipes for few labels; dev chooses, for each task and seed",
        settings={"training": {**_SMALL, **_ALL_LABELS, "final_epochs": 0}},
        candidates={
            "setfit": {"space": "setfit"},
            "few-labels": {"space": "few-labels"},
            "finetune": {
                "method": "finetune",
                "training": {"row_budget": "end-task"},
                "heads": _PROBES,
            },
        },
    ),
    _union(
        "bert", "Masked language modelling on the task", BERT, "task/bert-op/bidirectional/denoise"
    ),
    _union("tapt", "Task-adaptive training", TAPT, "task/bert-op/bidirectional/denoise"),
    _union("dapt", "Domain-adaptive training", TAPT, "in-domain/bert-op/bidirectional/denoise"),
    _union(
        "tapt+dapt",
        "Task- and domain-adaptive training",
        TAPT,
        "task/bert-op/bidirectional/denoise",
        "in-domain/bert-op/bidirectional/denoise",
    ),
    _union("gpt", "Left-to-right language modelling", GPT, "task/no-op/left-to-right/next-token"),
    _union("xlnet", "Permuted language modelling", XLNET, "task/no-op/permuted/next-token"),
    _union(
        "elmo",
        "Language modelling in both directions",
        ELMO,
        "task/no-op/left-to-right/next-token",
        "task/no-op/right-to-left/next-token",
    ),
    _union("spanbert", "Masked spans", SPANBERT, "task/span-mask/bidirectional/denoise"),
    _union(
        "electra",
        "Tokens replaced by a masked language model's proposals, found again",
        ELECTRA,
        "neural-lm/replace/bidirectional/real-synthetic",
    ),
    _union(
        "supervised",
        "The labels of every further task (--aux-task)",
        STILTS,
        "aux/no-op/bidirectional/supervised",
        for_selection=_TARGET_ORIENTED,
    ),
    Space(
        name="full",
        summary="Every legal combination of the paper's Figure 2, with the end-task",
        blocks=(_FIGURE_2,),
        optional={"out-of-domain", "in-domain", "neural-lm"},
        source=AANG,
    ),
    _union(
        "gpt-style",
        "The paper's GPT-style baseline: denoises, predicts nothing ahead",
        AANG,
        "task/no-op/left-to-right/denoise",
    ),
    _union(
        "xlnet-style",
        "The paper's XLNet-style baseline: denoises, predicts nothing ahead",
        AANG,
        "task/no-op/random-factorized/denoise",
    ),
)

NAMED_OBJECTIVES = tuple(
    NamedObjective(name=name, objective=objective, source=source)
    for name, objective, source in (
        ("bert", "task/bert-op/bidirectional/denoise", BERT),
        ("tapt", "task/bert-op/bidirectional/denoise", TAPT),
        ("dapt", "in-domain/bert-op/bidirectional/denoise", TAPT),
        ("gpt", "task/no-op/left-to-right/next-token", GPT),
        ("gpt", "out-of-domain/no-op/left-to-right/next-token", GPT),
        ("xlnet", "task/no-op/permuted/next-token", XLNET),
        ("elmo-forward", "task/no-op/left-to-right/next-token", ELMO),
        ("elmo-backward", "task/no-op/right-to-left/next-token", ELMO),
        ("electra", "neural-lm/replace/bidirectional/real-synthetic", ELECTRA),
        ("spanbert", "task/span-mask/bidirectional/denoise", SPANBERT),
        ("gpt-style", "task/no-op/left-to-right/denoise", AANG),
        ("xlnet-style", "task/no-op/random-factorized/denoise", AANG),
    )
)
