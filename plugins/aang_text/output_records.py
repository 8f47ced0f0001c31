"""The records of the fourth stage: outputs. The code lies in `aang_text.outputs`."""

from __future__ import annotations

from aang_core.registry.records import Output
from aang_text.papers import (
    AANG,
    ALBERT,
    BERT,
    ELECTRA,
    GPT,
    LOSSES,
    MEAN_TEACHER,
    QUICK_THOUGHTS,
    SETFIT,
    SIMCSE,
    SPANBERT,
    STILTS,
    STRUCTBERT,
    SUPCON,
)

_DECODER = {"decoder": "tied"}
_CORRUPTED = {"transform:selection", "transform:aligned"}
_VOCABULARY = {"backbone:vocabulary"}
_WHOLE = {"representation:whole-sequence"}
_ORDER = {"data:document-order"} | _WHOLE
_DOCUMENTS = {"data:documents"} | _ORDER

OUTPUTS = (
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
        factory="aang_core.method.end_task:EndTask",
        requires={"data:end-task", "representation:whole-sequence"},
        options={"class_weights": "none"},
        source=AANG,
    ),
    Output(
        name="agree",
        summary="Say of the changed text what a slow copy of the model says of the text itself",
        factory="aang_text.outputs.agree:Agree",
        requires={"task:class", "representation:whole-sequence"},
        conflicts={"data:labels"},
        options={
            "temperature": 0.5,
            "align": True,
            "gate": "none",
            "threshold": 0.95,
            "memory_decay": 0.95,
            "ramp": [0.15, 0.4],
        },
        source=MEAN_TEACHER,
    ),
    Output(
        name="same-class",
        summary="Tell whether two labelled texts have the same class, by their cosine",
        factory="aang_text.outputs.same_class:SameClass",
        requires={"task:class", "data:end-task"} | _WHOLE,
        options={"pooling": "mean"},
        source=SETFIT,
    ),
    Output(
        name="class-contrast",
        summary="Find the texts of the same class among the others of the step",
        factory="aang_text.outputs.same_class:ClassContrast",
        requires={"task:class", "data:end-task"} | _WHOLE,
        options={"pooling": "mean", "temperature": 0.1},
        source=SUPCON,
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
    Output(
        name="nsp",
        summary="Tell the sentence that follows from one of another document",
        factory="aang_text.outputs.structure:NextSentence",
        requires=_DOCUMENTS,
        source=BERT,
    ),
    Output(
        name="adjacent-sentence",
        summary="Tell the next sentence, the one before and one of another document apart",
        factory="aang_text.outputs.structure:AdjacentSentence",
        requires=_DOCUMENTS,
        source=STRUCTBERT,
    ),
    Output(
        name="sentence-order",
        summary="Tell whether two neighbouring sentences are swapped",
        factory="aang_text.outputs.structure:SentenceOrder",
        requires=_ORDER,
        source=ALBERT,
    ),
    Output(
        name="sentence-continuation",
        summary="Tell the end of a sentence from the end of another one",
        factory="aang_text.outputs.structure:SentenceContinuation",
        requires={"data:sentences"} | _WHOLE,
        source=AANG,
    ),
    Output(
        name="quick-thoughts",
        summary="Find the neighbouring sentence among the step's other sentences",
        factory="aang_text.outputs.contrast:QuickThoughts",
        requires=_DOCUMENTS,
        source=QUICK_THOUGHTS,
    ),
    Output(
        name="first-sentence",
        summary="Find the sentence of the document that a first sentence opens, among the step's",
        factory="aang_text.outputs.contrast:FirstSentence",
        requires=_DOCUMENTS,
        source=LOSSES,
    ),
    Output(
        name="contrastive",
        summary="Find the same text under another dropout mask among the step's texts",
        factory="aang_text.outputs.contrast:Contrastive",
        requires={"backbone:dropout"} | _WHOLE,
        options={"temperature": 0.05},
        source=SIMCSE,
    ),
    Output(
        name="supervised",
        summary="Predict the labels of a further task",
        factory="aang_text.outputs.supervised:Supervised",
        requires={"data:aux-labels"} | _WHOLE,
        source=STILTS,
    ),
)
