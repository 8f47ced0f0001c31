"""What the built-in text plugin registers: records only; the code lies beside this file."""

from __future__ import annotations

from collections.abc import Iterable

from aang_core.hookspecs import hookimpl
from aang_core.primitives import (
    BackboneKind,
    DataSource,
    NamedObjective,
    Output,
    Representation,
    Space,
    TaskKind,
    Transform,
)
from aang_text.spaces import NAMED_OBJECTIVES, SPACES

AANG = "Dery et al., AANG: Automating Auxiliary Learning, ICLR 2023"
BERT = "Devlin et al., BERT, NAACL 2019"
ELECTRA = "Clark et al., ELECTRA, ICLR 2020"
LOSSES = "Aroca-Ouellette & Rudzicz, On Losses for Modern Language Models, EMNLP 2020"
SPANBERT = "Joshi et al., SpanBERT, TACL 2020"
TAPT = "Gururangan et al., Don't Stop Pretraining, ACL 2020"
XLNET = "Yang et al., XLNet, NeurIPS 2019"
GPT = "Radford et al., Improving Language Understanding by Generative Pre-Training, 2018"
BART = "Lewis et al., BART, ACL 2020"
NEFTUNE = "Jain et al., NEFTune, ICLR 2024"

_SELECTS = {"rate": 0.15, "whole_words": False}
_BERT_SHARES = [0.8, 0.1, 0.1]
_DECODER = {"decoder": "tied"}
_CORRUPTED = {"transform:selection", "transform:aligned"}
_PER_ROW = {"backbone:row-attention"}
_VOCABULARY = {"backbone:vocabulary"}


@hookimpl
def aang_data_sources() -> Iterable[DataSource]:
    return [
        DataSource(
            name="task",
            summary="The task's own training texts, labelled and unlabelled",
            factory="aang_text.sources:TaskTexts",
            provides={"data:labels", "data:end-task"},
            may_provide={"data:tags"},
            source=TAPT,
        ),
        DataSource(
            name="in-domain",
            summary="A corpus of the task's domain",
            factory="aang_text.sources:in_domain",
            may_provide={"data:document-order"},
            source=TAPT,
        ),
        DataSource(
            name="out-of-domain",
            summary="A corpus of any other domain",
            factory="aang_text.sources:out_of_domain",
            may_provide={"data:document-order"},
            source=AANG,
        ),
    ]


@hookimpl
def aang_transforms() -> Iterable[Transform]:
    return [
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
    ]


@hookimpl
def aang_representations() -> Iterable[Representation]:
    return [
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
            source="Peters et al., Deep Contextualized Word Representations, NAACL 2018",
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
    ]


@hookimpl
def aang_outputs() -> Iterable[Output]:
    return [
        Output(
            name="denoise",
            summary="Predict the original token at each selected position",
            factory="aang_text.outputs.vocabulary:Denoise",
            requires=_CORRUPTED | _VOCABULARY,
            options=_DECODER,
            source=BERT,
        ),
        Output(
            name="end-task",
            summary="Predict the end-task's own label",
            factory="aang_core.end_task:EndTask",
            requires={"data:end-task", "representation:whole-sequence"},
            options={"class_weights": "none"},
            source=AANG,
        ),
        Output(
            name="next-token",
            summary="Predict the token that follows in the representation's order",
            factory="aang_text.outputs.vocabulary:NextToken",
            requires={"representation:order"} | _VOCABULARY,
            options=_DECODER,
            source=GPT,
        ),
        Output(
            name="span-boundary",
            summary="Predict each selected span from the two states beside it",
            factory="aang_text.outputs.vocabulary:SpanBoundary",
            requires=_CORRUPTED | _VOCABULARY,
            options=_DECODER,
            source=SPANBERT,
        ),
        Output(
            name="real-synthetic",
            summary="Tell changed tokens from original ones, at every position",
            factory="aang_text.outputs.tokens:RealSynthetic",
            requires={"transform:aligned"},
            source=ELECTRA,
        ),
        Output(
            name="capitalization",
            summary="Tell how the text wrote each token: lower case, capital initial, capitals",
            factory="aang_text.outputs.tokens:Capitalization",
            source=LOSSES,
        ),
        Output(
            name="token-labels",
            summary="Predict the tags that the data gives to words",
            factory="aang_text.outputs.tokens:TokenLabels",
            requires={"data:tags"},
            source=AANG,
        ),
        Output(
            name="tf",
            summary="Estimate how often each token occurs in its text",
            factory="aang_text.outputs.statistics:TermFrequency",
            source=LOSSES,
        ),
        Output(
            name="tf-idf",
            summary="Estimate each token's weight by term frequency and document frequency",
            factory="aang_text.outputs.statistics:TfIdf",
            source=LOSSES,
        ),
    ]


@hookimpl
def aang_spaces() -> Iterable[Space]:
    return SPACES


@hookimpl
def aang_named_objectives() -> Iterable[NamedObjective]:
    return NAMED_OBJECTIVES


@hookimpl
def aang_backbones() -> Iterable[BackboneKind]:
    return [
        BackboneKind(
            name="huggingface",
            summary="Encoders of transformers: hub ids, folders, bundled: and scratch: names",
            factory="aang_text.backbone:load",
            prefixes=("bundled:", "scratch:"),
            fallback=True,
            default_model="bundled:minilm",
            reads=("text", "text_pair"),
            capabilities={"backbone:row-attention", "backbone:dropout", "backbone:vocabulary"},
            source="Wolf et al., Transformers, EMNLP 2020 (demonstrations)",
        )
    ]


@hookimpl
def aang_tasks() -> Iterable[TaskKind]:
    return [
        TaskKind(
            name="sample",
            summary="Docstrings of the standard library by the part of it they come from",
            factory="aang_text.sample:load",
            model="bundled:minilm",
            source="The Python standard library's own documentation",
        )
    ]
