"""The exported model of a run on texts: a plain model of transformers with tokenizer and card. Write it and load it.

C logits of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from aang_core.batch.parts import device_named
from aang_core.errors import ModelError
from aang_core.rundir.card import HUB_METRICS, card_metadata, is_hub_id
from aang_text.encoder.checkpoint import quiet
from aang_text.encoder.heads import PROBLEMS, ClassifierHead, auto_class
from aang_text.encoder.pooling import mean_layer
from aang_text.encoder.tokens import Tokens
from aang_text.encoder.tuning import plain_state

if TYPE_CHECKING:
    from aang_core.batch.protocols import BackboneSettings
    from aang_core.data.task import Task
    from aang_text.encoder.checkpoint import Checkpoint

_EVAL_ROWS = 32


def export_model(
    directory: Path, body: nn.Module, head: ClassifierHead, task: Task, checkpoint: Checkpoint
) -> None:
    """Write configuration, safetensors, tokenizer and model card.

    The model is assembled on the meta device from the trained tensors themselves, so nothing is copied. A head that
    reads the mean gets one frozen layer behind the encoder's own, which computes it; see `pooling`.

    :raises ModelError: where the parts do not make up the family's whole model, or the files do not give every
        weight back bit for bit.
    """
    shell: Any = head.shell
    config = deepcopy(shell.config)
    config.num_hidden_layers += head.reading is not None
    with torch.device("meta"):
        whole = auto_class(task.kind).from_config(config)
    prefix = shell.base_model_prefix
    state = {f"{prefix}.{name}": tensor for name, tensor in plain_state(body).items()}
    if head.reading is not None:
        kind = next(iter(state.values())).dtype
        state |= {n: t.to(kind) for n, t in mean_layer(getattr(whole, prefix), prefix).items()}
    state |= shell.state_dict()
    lacking, surplus = whole.load_state_dict(state, strict=False, assign=True)
    if lacking or surplus:
        raise ModelError(
            f"model {checkpoint.name!r} cannot be put together again: without a value {sorted(lacking)}, "
            f"without a place {sorted(surplus)}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    with quiet():
        whole.save_pretrained(directory)
    _compare(directory, whole, task.kind)
    checkpoint.tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(model_card(task, checkpoint), encoding="utf-8")


def _compare(directory: Path, whole: nn.Module, kind: str) -> None:
    """:raises ModelError: where a tensor that is loaded from the folder is not the one that was written."""
    with quiet():
        again = auto_class(kind).from_pretrained(directory, use_safetensors=True).state_dict()
    for name, tensor in whole.state_dict().items():
        if name not in again or not torch.equal(again[name], tensor.cpu()):
            raise ModelError(
                f"{directory} was written, but the weight {name} is not there again as it was trained; nothing can be "
                "exported from this encoder"
            )


def model_card(task: Task, checkpoint: Checkpoint) -> str:
    """The exported model's README, with the front matter that model hubs read."""
    token = task.kind == "token"
    pipeline = "token-classification" if token else "text-classification"
    pair = "text_pair" in task.splits["train"].column_names
    example = '{"text": "…", "text_pair": "…"}' if pair else '"…"'
    labels = "\n".join(f"- `{name}`" for name in task.label_names) or "- a number"
    front = card_metadata(
        library_name="transformers",
        license="unknown",  # the owner chooses; the base model's own may bind them
        pipeline_tag=pipeline,
        base_model=checkpoint.known_as if is_hub_id(checkpoint.known_as) else None,
        metrics=[HUB_METRICS.get(task.metric, task.metric)],
        tags=["aang", "auxiliary-learning"],
    )
    return f"""{front}

# {task.name}

{checkpoint.known_as}, fine-tuned on the task `{task.name}` ({task.kind}) by aang.
It needs nothing but transformers:

```python
from transformers import pipeline

pipeline("{pipeline}", "path/to/this/folder")({example})
```

It answers with

{labels}

The license is not stated here: choose one before you publish (`license` at the top), and mind that of the base model
and of the data. Languages (`language`) and data sets (`datasets`) can be named there too.

The run's `report.json` holds the method, development and test results, and the auxiliary objectives, where the
method has any, with their weights (Dery et al., AANG, ICLR 2023).
"""


class ExportedModel:
    """A folder that `export_model` wrote, loaded from its files alone; a `export.Predictor`.

    :param max_length: positions of the longest row; a lower limit of the tokenizer is kept.
    """

    def __init__(self, directory: Path, max_length: int, device: torch.device) -> None:
        from transformers import AutoConfig, AutoTokenizer

        try:
            with quiet():
                config: Any = AutoConfig.from_pretrained(directory)
                token = config.architectures[0].endswith("ForTokenClassification")
                loader = auto_class("token" if token else "class")
                model = loader.from_pretrained(directory, use_safetensors=True)
                tokenizer = AutoTokenizer.from_pretrained(directory)
        except (OSError, ValueError, SafetensorError) as cause:
            raise ModelError(f"{directory} holds no model that can be loaded: {cause}") from cause
        kinds = {problem: kind for kind, problem in PROBLEMS.items()}
        self.kind = "token" if token else kinds[config.problem_type]
        names = () if self.kind == "regression" else (config.id2label[i] for i in config.id2label)
        self.label_names: tuple[str, ...] = tuple(names)
        self.device = device
        self.model: Any = model.to(device).eval()
        self.tokens = Tokens(tokenizer, min(max_length, tokenizer.model_max_length), frozenset())

    @torch.no_grad()
    def logits(self, examples: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        """Each example's logits on the CPU in fp32: [C], for token tasks [words, C]."""
        found: list[Tensor] = []
        for logits, padded in self._batches(examples):
            token = self.kind == "token"
            found += [
                row[_word_starts(padded, i)] if token else row for i, row in enumerate(logits)
            ]
        return found

    @torch.no_grad()
    def position_logits(self, examples: Sequence[Mapping[str, Any]]) -> Tensor:
        """[positions, C] of all examples together, special positions among them, for token tasks."""
        return torch.cat(
            [
                logits[padded["attention_mask"].bool().cpu()]
                for logits, padded in self._batches(examples)
            ]
        )

    def _batches(self, examples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Tensor, Any]]:
        """Batches of logits ([B, C] or padded [B, T, C]) with what the tokenizer gave for them."""
        for padded in self.tokens.padded(examples, _EVAL_ROWS):
            batch = padded.to(self.device)
            yield self.model(**batch).logits.float().cpu(), batch


def _word_starts(padded: Any, row: int) -> list[int]:
    """The first position of each word of a row."""
    places = list(zip(padded.sequence_ids(row), padded.word_ids(row), strict=True))
    before = [(None, None), *places]
    return [i for i, place in enumerate(places) if None not in place and place != before[i]]


def load_predictor(directory: Path, settings: BackboneSettings) -> ExportedModel:
    """An exported model that answers; only `max_length` and `device` of the settings matter.

    :raises ModelError: where the files cannot be loaded, or there is no such device.
    """
    return ExportedModel(directory, settings.max_length, device_named(settings.device))


def exported_logits(
    directory: Path, examples: Sequence[Mapping[str, Any]], tokens: Tokens, device: torch.device
) -> Tensor:
    """[len(examples), C] (token tasks: [positions, C]) from the files alone, on the CPU."""
    found = ExportedModel(directory, tokens.max_length, device)
    if found.kind == "token":
        return found.position_logits(examples)
    return torch.stack(found.logits(examples))
