"""Tiny fine-tuned classifiers of transformers, saved to folders, for objectives that learn from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from aang_text.encoder.checkpoint import tiny_config, tiny_tokenizer


def save_classifier(folder: Path, names: Sequence[str], seed: int = 0, **config: object) -> Path:
    """A BERT of two layers with a head for these classes, its weights random."""
    from transformers import BertForSequenceClassification

    tokenizer = tiny_tokenizer()
    settings = tiny_config(tokenizer)
    settings.id2label = dict(enumerate(names))
    settings.label2id = {name: number for number, name in enumerate(names)}
    for name, value in config.items():
        setattr(settings, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForSequenceClassification(settings)
        model.classifier.weight.data.mul_(20)  # answers that differ
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
