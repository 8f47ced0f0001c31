"""The records of the first three stages: data sources, transforms and representations. The code lies beside."""

from __future__ import annotations

from aang_core.registry.records import DataSource, Representation, Transform
from aang_text.papers import (
    AANG,
    BART,
    BERT,
    ELECTRA,
    ELMO,
    GPT,
    NEFTUNE,
    SPANBERT,
    STILTS,
    TAPT,
    UDA,
    XLNET,
)

_SELECTS = {"rate": 0.15, "whole_words": False}
_BERT_SHARES = [0.8, 0.1, 0.1]
_CORRUPTED = {"transform:selection", "transform:aligned"}
_PER_ROW = {"backbone:row-attention"}
_VOCABULARY = {"backbone:vocabulary"}
_ORDERED = {"data:document-order", "data:documents", "data:sentences"}

DATA_SOURCES = (
    DataSource(
        name="task",
        summary="The task's own training examples, labelled and unlabelled",
        factory="aang_text.sources:TaskTexts",
        provides={"data:labels", "data:end-task"},
        may_provide={"data:tags"},
        source=TAPT,
    ),
    DataSource(
        name="unlabelled",
        summary="The task's training texts whose labels the run may not see",
        factory="aang_text.sources:UnlabelledTexts",
        requires={"task:unlabelled"},
        source=UDA,
    ),
    DataSource(
        name="in-domain",
        summary="A corpus of the task's domain",
        factory="aang_text.sources:in_domain",
        may_provide=_ORDERED,
        source=TAPT,
    ),
    DataSource(
        name="out-of-domain",
        summary="A corpus of any other domain",
        factory="aang_text.sources:out_of_domain",
        may_provide=_ORDERED,
        source=AANG,
    ),
    DataSource(
        name="neural-lm",
        summary="Texts with other tokens proposed by a frozen masked language model",
        factory="aang_text.proposals:NeuralLm",
        requires=_VOCABULARY,
        options={"corpus": "task", "model": "", "fit_steps": 200, "texts": 500, "seed": 0},
        source=ELECTRA,
    ),
    DataSource(
        name="generated",
        summary="Texts sampled from a causal language model that the run names",
        factory="aang_text.generated:Generated",
        options={"model": "", "texts": 500, "length": 64, "seed": 0},
        source=GPT,
    ),
    DataSource(
        name="aux",
        summary="Texts and labels of further tasks, aux:NAME for each --aux-task",
        factory="aang_text.aux_tasks:AuxTexts",
        provides={"data:aux-labels"},
        may_provide={"data:tags"},
        options={"task": ""},
        per_task=True,
        source=STILTS,
    ),
)

TRANSFORMS = (
    Transform(
        name="no-op",
        summary="Select 15 % of the tokens and change nothing",
        factory="aang_text.transforms:Selecting",
        options=_SELECTS,
        source=AANG,
    ),
    Transform(
        name="mask",
        summary="Mask 15 % of the tokens",
        factory="aang_text.transforms:Mask",
        requires=_VOCABULARY,
        options=_SELECTS,
        source=AANG,
    ),
    Transform(
        name="replace",
        summary="Replace 15 % of the tokens by proposals of a language model or random ids",
        factory="aang_text.transforms:Replace",
        options=_SELECTS,
        source=AANG,
    ),
    Transform(
        name="bert-op",
        summary="Of 15 % of the tokens mask 80 %, replace 10 % at random and keep 10 %",
        factory="aang_text.transforms:BertOp",
        requires=_VOCABULARY,
        options={**_SELECTS, "proportions": _BERT_SHARES},
        source=BERT,
    ),
    Transform(
        name="mixed",
        summary="Mask, replace or keep 15 % of the tokens, in proportions that the run learns",
        factory="aang_text.transforms:Mixed",
        requires=_VOCABULARY,
        options={**_SELECTS, "proportions": _BERT_SHARES},
        source=AANG,
    ),
    Transform(
        name="span-mask",
        summary="Mask contiguous spans of words, of geometric length, until 15 % are selected",
        factory="aang_text.transforms:SpanMask",
        requires=_VOCABULARY,
        options={
            "rate": 0.15,
            "whole_words": True,
            "proportions": _BERT_SHARES,
            "p": 0.2,
            "longest": 10,
        },
        source=SPANBERT,
    ),
    Transform(
        name="noise-embeddings",
        summary="Add Gaussian or uniform noise to the input embeddings of 15 % of the tokens",
        factory="aang_text.transforms:NoiseEmbeddings",
        options={**_SELECTS, "noise": "gaussian", "std": 1.0},
        source=NEFTUNE,
    ),
    Transform(
        name="delete",
        summary="Delete 15 % of the tokens",
        factory="aang_text.transforms:Delete",
        drops=_CORRUPTED,
        options=_SELECTS,
        source=BART,
    ),
)

REPRESENTATIONS = (
    Representation(
        name="bidirectional",
        summary="Every position sees the whole row",
        factory="aang_text.representations:bidirectional",
        provides={"representation:whole-sequence"},
        source=BERT,
    ),
    Representation(
        name="left-to-right",
        summary="A position sees itself and what is left of it",
        factory="aang_text.representations:left_to_right",
        provides={"representation:order"},
        requires=_PER_ROW,
        source=GPT,
    ),
    Representation(
        name="right-to-left",
        summary="A position sees itself and what is right of it",
        factory="aang_text.representations:right_to_left",
        provides={"representation:order"},
        requires=_PER_ROW,
        source=ELMO,
    ),
    Representation(
        name="random-factorized",
        summary="A position sees itself and every other one with probability 0.6",
        factory="aang_text.representations:RandomFactorized",
        provides={"representation:whole-sequence"},
        requires=_PER_ROW,
        options={"keep": 0.6, "shared": False},
        source=AANG,
    ),
    Representation(
        name="permuted",
        summary="A position sees itself and what precedes it in a random order of the row",
        factory="aang_text.representations:permuted",
        provides={"representation:order"},
        requires=_PER_ROW,
        source=XLNET,
    ),
)
