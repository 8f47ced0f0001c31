"""The records of the four stages, and the publications that they cite. The code lies beside.

Records only, so that listing primitives loads no torch.
"""

from __future__ import annotations

from aang_core.registry.records import DataSource, Output, Representation, Transform

AANG = "Dery et al., AANG: Automating Auxiliary Learning, ICLR 2023"
ALBERT = "Lan et al., ALBERT, ICLR 2020"
BART = "Lewis et al., BART, ACL 2020"
BERT = "Devlin et al., BERT, NAACL 2019"
CUTOFF = "Shen et al., A Simple but Tough-to-Beat Data Augmentation Approach (Cutoff), 2020"
ELECTRA = "Clark et al., ELECTRA, ICLR 2020"
MEAN_TEACHER = "Tarvainen & Valpola, Mean Teachers Are Better Role Models, NeurIPS 2017"
ELMO = "Peters et al., Deep Contextualized Word Representations, NAACL 2018"
DISTILLING = (
    "Hinton et al., Distilling the Knowledge in a Neural Network, 2015; "
    "Park et al., Relational Knowledge Distillation, CVPR 2019"
)
FIXMATCH = "Sohn et al., FixMatch, NeurIPS 2020"
GPT = "Radford et al., Improving Language Understanding by Generative Pre-Training, 2018"
LOSSES = "Aroca-Ouellette & Rudzicz, On Losses for Modern Language Models, EMNLP 2020"
NEFTUNE = "Jain et al., NEFTune, ICLR 2024"
QUICK_THOUGHTS = (
    "Logeswaran & Lee, An Efficient Framework for Learning Sentence Representations, ICLR 2018"
)
SIMCSE = "Gao et al., SimCSE, EMNLP 2021"
SPANBERT = "Joshi et al., SpanBERT, TACL 2020"
STILTS = "Phang et al., Sentence Encoders on STILTs, 2018"
STRUCTBERT = "Wang et al., StructBERT, ICLR 2020"
PSEUDO = "Lee, Pseudo-Label, ICML workshop 2013"
SETFIT = "Tunstall et al., Efficient Few-Shot Learning Without Prompts, 2022"
SUPCON = "Khosla et al., Supervised Contrastive Learning, NeurIPS 2020"
TAPT = "Gururangan et al., Don't Stop Pretraining, ACL 2020"
UDA = "Xie et al., Unsupervised Data Augmentation, NeurIPS 2020"
XLNET = "Yang et al., XLNet, NeurIPS 2019"

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
        factory="aang_text.data.sources:TaskTexts",
        provides={"data:labels", "data:end-task"},
        may_provide={"data:tags"},
        source=TAPT,
    ),
    DataSource(
        name="unlabelled",
        summary="The task's training texts whose labels the run may not see",
        factory="aang_text.data.sources:UnlabelledTexts",
        requires={"task:unlabelled"},
        source=UDA,
    ),
    DataSource(
        name="pseudo-labelled",
        summary="Texts without labels, with a first model's label where neighbours confirm it",
        factory="aang_text.data.pseudo:PseudoLabelled",
        provides={"data:labels", "data:end-task"},
        requires={"task:class", "task:unlabelled"},
        options={"neighbours": 5, "agreement": 0.8, "confidence": 0.5, "refresh": 0},
        check_options="aang_text.data.pseudo:faults",
        trial_options={"agreement": 0.2, "confidence": 0.2},
        source=PSEUDO,
    ),
    DataSource(
        name="in-domain",
        summary="A corpus of the task's domain",
        factory="aang_text.data.sources:in_domain",
        may_provide=_ORDERED,
        source=TAPT,
    ),
    DataSource(
        name="out-of-domain",
        summary="A corpus of any other domain",
        factory="aang_text.data.sources:out_of_domain",
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
        factory="aang_text.data.generated:Generated",
        options={"model": "", "texts": 500, "length": 64, "seed": 0},
        source=GPT,
    ),
    DataSource(
        name="aux",
        summary="Texts and labels of further tasks, aux:NAME for each --aux-task",
        factory="aang_text.data.sources:AuxTexts",
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
        name="swap",
        summary="Replace 15 % of the tokens by tokens of other texts of the batch",
        factory="aang_text.transforms:Swap",
        options=_SELECTS,
        source=UDA,
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
        name="cutoff",
        summary="Set the input embeddings of a span of 15 % of the tokens to zero",
        factory="aang_text.transforms:Cutoff",
        options={**_SELECTS, "cut": "span"},
        source=CUTOFF,
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


_DECODER = {"decoder": "tied"}
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
        summary="Answer for the changed text as a slow copy of the model answers for the text itself",
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
        check_options="aang_text.outputs.agree:faults",
        source=MEAN_TEACHER,
    ),
    Output(
        name="distil",
        summary="Answer as a larger fine-tuned classifier does, and keep its distances between texts (--teacher-model)",
        factory="aang_text.outputs.distil:Distil",
        requires={"task:class", "run:teacher-model"} | _WHOLE,
        options={"teacher_model": "", "temperature": 2.0, "relations": 1.0},
        check_options="aang_text.outputs.distil:faults",
        trial_options={"teacher_model": "scratch:tiny"},
        source=DISTILLING,
    ),
    Output(
        name="same-class",
        summary="Tell whether two labelled texts have the same class, by their cosine",
        factory="aang_text.outputs.same_class:SameClass",
        requires={"task:class", "data:end-task"} | _WHOLE,
        options={"pooling": "mean"},
        check_options="aang_text.outputs.same_class:faults",
        source=SETFIT,
    ),
    Output(
        name="class-contrast",
        summary="Find the texts of the same class among the others of the step",
        factory="aang_text.outputs.same_class:ClassContrast",
        requires={"task:class", "data:end-task"} | _WHOLE,
        options={"pooling": "mean", "temperature": 0.1},
        check_options="aang_text.outputs.same_class:faults",
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
        factory="aang_text.outputs.tokens:TermFrequency",
        source=LOSSES,
    ),
    Output(
        name="tf-idf",
        summary="Estimate each token's weight by term frequency and document frequency",
        factory="aang_text.outputs.tokens:TfIdf",
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
