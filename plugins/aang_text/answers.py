"""What a fine-tuned classifier says of texts: asked once, kept in the user's cache, and matched by ``distil``.

On the CPU each text is asked by itself, so that its answer has the same bits whichever others are asked with it. The
answers are written as they come, so that an interruption loses a few texts. U texts, C classes, H the classifier's
hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from aang_core.batch.parts import Examples
from aang_core.batch.protocols import Binding
from aang_core.data.task import Task
from aang_core.errors import ModelError
from aang_text.data.stored import (
    digest,
    place_of,
    read,
    text_tensor,
    texts_of,
    tokenizer_digest,
    weights_digest,
    write,
)
from aang_text.encoder.checkpoint import SCRATCH, open_checkpoint
from aang_text.encoder.heads import auto_class
from aang_text.encoder.tokens import Tokens

_FORMAT = 1
_KEPT = 256  # texts in one file of the cache: what an interruption loses at the most
_BATCH = 64
_UNTOLD = {"_name_or_path", "transformers_version"}
"""What a configuration holds that changes no answer."""


@attrs.frozen(eq=False)
class Answers:
    """:param logits: [U, C] in the order of the task's classes.
    :param features: [U, H] the mean of each text's last states; [U, 0] where the model has none for each position.
    """

    logits: Tensor
    features: Tensor


class Classifier:
    """A fine-tuned classifier of the task's classes. No code of its folder is run, and only safetensors are read.

    :param name: a folder or hub id; ``scratch:tiny`` is a random one of the task's classes, for tests.
    :param max_length: positions of the longest text; a lower limit of the model's own is kept.
    :ivar order: [C] the model's own number of each class of the task.
    :raises ModelError: where it cannot be loaded, was not fine-tuned, or has other classes than the task.
    """

    def __init__(self, name: str, task: Task, max_length: int) -> None:
        try:
            checkpoint = open_checkpoint(name, "float32", 0)
            own = {"id2label": dict(enumerate(task.label_names))} if name == SCRATCH else {}
            model, lacking = checkpoint.build(auto_class("class"), **own)
        except ModelError as cause:
            raise ModelError(f"teacher_model: {cause}") from cause
        self.name, self.model, self.config = name, model.eval(), model.config
        if lacking and name != SCRATCH:
            raise ModelError(
                f"teacher_model: {name!r} is no fine-tuned classifier, its files lack {sorted(lacking)[0]}; expected a "
                f"model of transformers that was trained on the classes of {task.name!r}, or a finished run of aang"
            )
        self.order = self._order(task)
        places = getattr(self.config, "max_position_embeddings", max_length)
        limit = min(max_length, places, checkpoint.tokenizer.model_max_length)
        self.tokens = Tokens(checkpoint.tokenizer, limit, frozenset())

    @property
    def settings(self) -> dict[str, Any]:
        """All that its answers depend on, beside the texts."""
        rules = {k: v for k, v in self.config.to_dict().items() if k not in _UNTOLD}
        return {
            "format": _FORMAT,
            "weights": weights_digest(self.model),
            "rules": digest([repr(sorted(rules.items(), key=lambda rule: rule[0])).encode()]),
            "tokenizer": tokenizer_digest(self.tokens.tokenizer),
            "max_length": self.tokens.max_length,
        }

    @torch.no_grad()
    def ask(self, examples: Examples, device: torch.device) -> Answers:
        """Its answers, with its own order of the classes, on the CPU."""
        model = self.model.to(device)
        logits, features = [], []
        for padded in self.tokens.padded(examples, 1 if device.type == "cpu" else _BATCH):
            batch = padded.to(device)
            said = model(**batch, output_hidden_states=True)
            states, mask = said.hidden_states[-1], batch["attention_mask"][..., None]
            if states.shape[:2] != mask.shape[:2]:  # a family that shortens its texts
                states = states[:, : mask.shape[1], :0]
                mask = mask[:, : states.shape[1]]
            logits.append(said.logits.float().cpu())
            features.append(((states * mask).sum(1) / mask.sum(1)).float().cpu())
        return Answers(torch.cat(logits), torch.cat(features))

    def _order(self, task: Task) -> Tensor:
        names = {str(name): int(number) for number, name in self.config.id2label.items()}
        wanted = set(task.label_names)
        several = self.config.problem_type == "multi_label_classification"
        if names.keys() == wanted and not several:
            return torch.tensor([names[name] for name in task.label_names])
        lacks, more = sorted(wanted - names.keys()), sorted(names.keys() - wanted)
        faults = [f"it lacks {', '.join(lacks[:5])}"] if lacks else []
        faults += [f"it has {', '.join(more[:5])} besides"] if more else []
        faults += ["it gives a text several labels"] if several else []
        raise ModelError(
            f"teacher_model: {self.name!r} has other classes than the task {task.name!r}: {'; '.join(faults)}. "
            f"Expected {len(wanted)} classes of the same names ({', '.join(task.label_names[:5])}, …) in the "
            "`id2label` of its config.json, in any order; train it on this task, or correct the names there"
        )


def answers_of(binding: Binding, model: str, examples: Examples) -> Answers:
    """A classifier's answers to examples, in their order: from the cache, and where it has none, asked now.

    :param binding: with the encoder whose `max_length` and device are taken.
    :raises ModelError: as in `Classifier`.
    :raises AangError: where the cache is damaged or cannot be written to.
    """
    assert binding.backbone is not None
    classifier = Classifier(model, binding.task, binding.backbone.max_length)
    settings = classifier.settings
    folder = place_of(binding.cache, "answers", settings).with_suffix("")
    texts = {_key(example): example for example in examples}
    keys = [_key(example) for example in examples]
    held = _held(folder, settings)
    missing = [key for key in texts if key not in held]
    device = next(binding.backbone.body.parameters()).device
    for start in range(0, len(missing), _KEPT):
        binding.progress("asking the teacher model", start, len(missing))
        chosen = missing[start : start + _KEPT]
        said = classifier.ask([texts[key] for key in chosen], device)
        stored = {"logits": said.logits, "features": said.features.half()}
        name = digest(key.encode() for key in chosen)[:32]
        place = folder / f"{name}.safetensors"
        write(place, settings, {"texts": text_tensor(chosen), **stored})
        held |= zip(chosen, zip(stored["logits"], stored["features"], strict=True), strict=True)
    if missing:
        binding.progress("asking the teacher model", len(missing), len(missing))
    binding.remark(
        f"distil: {model} (weights {settings['weights'][:12]}) answers {len(texts)} texts of "
        f"{getattr(binding.source, 'name', 'the data source')}"
    )
    logits, features = zip(*(held[key] for key in keys), strict=True)
    return Answers(torch.stack(logits)[:, classifier.order], torch.stack(features).float())


def _key(example: Mapping[str, Any]) -> str:
    """A text, or a pair, as a digest."""
    parts: Sequence[Any] = (example["text"], example.get("text_pair"))
    return digest(repr(part).encode() for part in parts)[:32]


def _held(folder: Path, settings: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """By text, the logits and features in a folder of the cache."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for place in sorted(folder.glob("*.safetensors")):
        if stored := read(place, settings):
            answers = zip(stored["logits"], stored["features"], strict=True)
            found |= zip(texts_of(stored["texts"]), answers, strict=True)
    return found
