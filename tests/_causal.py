"""A tiny random causal language model of integers, saved to a folder with its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = 90


def save_causal(folder: Path, seed: int = 0) -> Path:
    """A GPT-2 of two layers that writes integers below `WORDS`, so that the tiny encoder can read them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = {"<end>": 0, **{str(i): 1 + i for i in range(WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>", unk_token="<end>"
    )
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    whole.save_pretrained(folder)
    return folder
