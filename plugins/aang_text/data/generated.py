"""Stage 1, ``generated``: texts sampled from a causal language model that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from aang_core.batch.parts import Examples, ExampleSource
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin
from aang_core.errors import ModelError, TaskError
from aang_text.data.stored import place_of, read, text_tensor, texts_of, weights_digest, write
from aang_text.encoder.checkpoint import first_line, quiet

_BATCH = 16
_MOST_ROUNDS = 20
_FORMAT = 1


class Generated(ExampleSource):
    """Texts of a language model, at temperature 1 from its whole distribution, from nothing but its first token.

    Options: ``model``, a hub id or folder (none by default: without it there is no such source); ``texts``, how
    many; ``length``, most tokens of each; ``seed``. Made once and kept.
    """

    def __init__(self, binding: Binding) -> None:
        options = binding.options
        if not options["model"]:
            raise TaskError(
                "generated: expected a causal language model, found none; name one with "
                "--set primitives.generated.model=MODEL, or under [primitives.generated] in the configuration"
            )
        self.texts: list[str] = []
        self.count = int(options["texts"])
        super().__init__("generated", binding.backbone, frozenset())
        if binding.backbone is not None:
            self.texts = sampled_texts(binding)

    def __len__(self) -> int:
        return self.count

    def _examples(self, numbers: Sequence[int]) -> tuple[Examples, list[Origin]]:
        return [{"text": self.texts[n]} for n in numbers], [
            Origin(self.name, n, 0) for n in numbers
        ]


def sampled_texts(binding: Binding) -> list[str]:
    """The texts, from the cache or sampled now.

    :raises ModelError: where the model cannot be loaded, or writes nothing.
    """
    options = binding.options
    model, tokenizer = _load(str(options["model"]))
    settings = {
        "format": _FORMAT,
        "model": str(options["model"]),
        "weights": weights_digest(model),
        **{name: int(options[name]) for name in ("texts", "length", "seed")},
    }
    place = place_of(binding.cache, "generated", settings)
    stored = read(place, settings)
    if stored is None:
        stored = {"texts": text_tensor(_sample(binding, model, tokenizer))}
        write(place, settings, stored)
    return texts_of(stored["texts"])


def _load(name: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model: Any = AutoModelForCausalLM.from_pretrained(
                name, use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as cause:
        raise ModelError(
            f"[primitives.generated] model: {name!r} cannot be loaded as a causal language model with "
            f"safetensors ({first_line(cause)})"
        ) from cause
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise ModelError(
            f"[primitives.generated] model: {name!r} has neither a first nor a last token to begin with"
        )
    return model.eval(), tokenizer


@torch.no_grad()
def _sample(binding: Binding, model: Any, tokenizer: Any) -> list[str]:
    """As many non-empty texts as asked for; those without a word are drawn again."""
    count, length = int(binding.options["texts"]), int(binding.options["length"])
    # A text may not be longer than the model has positions for; the first token takes one.
    length = min(length, int(getattr(model.config, "max_position_embeddings", length + 1)) - 1)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    end = tokenizer.eos_token_id
    device = next(binding.backbone.body.parameters()).device if binding.backbone else "cpu"
    model.to(device)
    texts: list[str] = []
    cuda = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), quiet():  # `generate` takes no generator
        torch.manual_seed(int(binding.options["seed"]))
        for _ in range(_MOST_ROUNDS * -(-count // _BATCH)):
            if len(texts) >= count:
                break
            binding.progress("generated: sampling texts", len(texts), count)
            ids = model.generate(
                torch.full((_BATCH, 1), begin, device=device),
                attention_mask=torch.ones((_BATCH, 1), dtype=torch.long, device=device),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=length,
                pad_token_id=end if end is not None else begin,
            )
            said = tokenizer.batch_decode(ids, skip_special_tokens=True)
            texts += [text.strip() for text in said if text.strip()]
    if len(texts) < count:
        raise ModelError(
            f"[primitives.generated] model: {binding.options['model']!r} wrote {len(texts)} texts that are "
            f"not empty in {_MOST_ROUNDS * -(-count // _BATCH) * _BATCH} attempts; expected {count}"
        )
    binding.progress("generated: sampling texts", count, count)
    return texts[:count]
