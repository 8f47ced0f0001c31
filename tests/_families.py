"""Tiny random encoders of many families, saved to a folder with a small tokenizer, as a user would have them."""

from __future__ import annotations

from pathlib import Path

import torch

PACKED = ("bert", "roberta", "distilbert", "electra", "modernbert", "albert")
PADDED = ("mpnet", "deberta-v2", "rembert")

_BASE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
}
_OWN = {
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    # Layers 1 and 2 see 3 positions to either side, less than the tests' texts.
    "modernbert": {
        "pad_token_id": 0,
        "local_attention": 6,
        "global_attn_every_n_layers": 3,
        "classifier_pooling": "mean",
    },
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
}


def save_family(folder: Path, kind: str, auto: str = "AutoModel", **changes) -> Path:
    """A random model whose matrices are large enough for attention to matter."""
    import transformers
    from aang_text.encoder.checkpoint import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    ids = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    settings = _BASE | ids | _OWN.get(kind, {}) | changes
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, auto).from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    if kind == "mpnet":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return folder
