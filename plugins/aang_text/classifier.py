"""The end-task head: a checkpoint's own classification head on hidden states that are already there, and its export.

A head is transformers' own ``…ForSequenceClassification`` whose encoder is replaced by `Given`, which hands over
the states it is called with. So every family keeps its own pooling, activation and dropout, and an export is exact.
R rows, T positions of the longest, C logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from aang_core.errors import ModelError
from aang_core.rows import Hidden
from aang_text.checkpoint import device_named, quiet
from aang_text.tuning import plain_state

if TYPE_CHECKING:
    from aang_core.protocols import BackboneSettings
    from aang_core.task import Task
    from aang_text.checkpoint import Checkpoint
    from aang_text.tokens import Tokens

PROBLEMS = {
    "class": "single_label_classification",
    "regression": "regression",
    "multilabel": "multi_label_classification",
}
_EVAL_ROWS = 32


class Given(nn.Module):
    """Stands where the encoder stood; keeps its pooler, under the same name, because the head owns it.

    :param pooler: the encoder's pooler, or None; `activation` follows it where the family keeps them apart.
    """

    def __init__(self, pooler: nn.Module | None, activation: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler
        self.pooler_activation = activation

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        """States [R, T, H] as the encoder's output."""
        from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

        if self.pooler is None:
            return BaseModelOutput(last_hidden_state=inputs_embeds)
        if self.pooler_activation is None:
            pooled = self.pooler(inputs_embeds)
        else:
            pooled = self.pooler_activation(self.pooler(inputs_embeds[:, 0]))
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


class ClassifierHead(nn.Module):
    """Called as ``head(hidden, rows)``: logits [R, C]; for token tasks ``head(hidden, positions)``: [M, C].

    :ivar first_only: whether the family's head reads nothing but each row's first position, so that no row is
        padded for it.
    """

    def __init__(self, shell: nn.Module, kind: str) -> None:
        super().__init__()
        self.shell = shell
        self.kind = kind
        self.first_only = kind != "token" and _reads_first_only(shell)

    def forward(self, hidden: Hidden, rows: Tensor) -> Tensor:
        if self.kind == "token":  # these heads read every position by itself
            states = hidden.states[rows][:, None]
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
            return self._logits(states, mask)[:, 0]
        if self.first_only:
            states = hidden.first(rows)[:, None]
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
            return self._logits(states, mask)
        states, real = hidden.padded(rows)
        return self._logits(states, real.long())

    def _logits(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.shell(inputs_embeds=states, attention_mask=mask).logits  # type: ignore[no-any-return]


def make_head(checkpoint: Checkpoint, task: Task) -> ClassifierHead:
    """The head of the checkpoint's family for a task, on the CPU, in its initial state.

    :raises ModelError: where the family has no such head, or one that cannot run without its encoder.
    """
    model, _ = checkpoint.build(_auto(task.kind), **_labels(task))
    prefix = str(model.base_model_prefix)
    base = getattr(model, prefix)
    given = Given(getattr(base, "pooler", None), getattr(base, "pooler_activation", None))
    _check_pooling(base, given, checkpoint)
    setattr(model, prefix, given)
    return ClassifierHead(model, task.kind)


def _auto(kind: str) -> Any:
    import transformers

    if kind == "token":
        return transformers.AutoModelForTokenClassification
    return transformers.AutoModelForSequenceClassification


def _labels(task: Task) -> dict[str, Any]:
    """What the configuration says about the task; `num_labels` follows from `id2label`."""
    names = task.label_names if task.kind != "regression" else ("score",)
    changes: dict[str, Any] = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }
    if task.kind in PROBLEMS:
        changes["problem_type"] = PROBLEMS[task.kind]
    return changes


@torch.no_grad()
def _check_pooling(base: nn.Module, given: Given, checkpoint: Checkpoint) -> None:
    """Compare `Given` with the encoder's own pooled output for one text.

    :raises ModelError: where they differ: a family that pools in a way not known here.
    """
    if given.pooler is None:
        return
    base.eval()
    ids = torch.tensor([checkpoint.tokenizer("one text")["input_ids"]])
    own = base(input_ids=ids)
    pooled = given.eval()(inputs_embeds=own.last_hidden_state).pooler_output
    if pooled.shape != own.pooler_output.shape or not torch.allclose(
        pooled, own.pooler_output, atol=1e-4, rtol=1e-3
    ):
        raise ModelError(
            f"the pooler of {type(base).__name__} (model {checkpoint.name!r}) cannot be run apart from its encoder; "
            "use another encoder"
        )
    base.train()
    given.train()


@torch.no_grad()
def _reads_first_only(shell: nn.Module) -> bool:
    """Whether logits stay the same when every later position changes."""
    mode = shell.training
    shell.eval()
    parameter = next(shell.parameters())
    config: Any = shell.config
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 3, config.hidden_size, generator=generator).to(parameter)
    mask = torch.ones(2, 3, dtype=torch.long, device=parameter.device)
    before = shell(inputs_embeds=states, attention_mask=mask).logits
    states[:, 1:] += 1.0
    after = shell(inputs_embeds=states, attention_mask=mask).logits
    shell.train(mode)
    return bool(torch.equal(before, after))


def export_model(
    directory: Path, body: nn.Module, head: ClassifierHead, task: Task, checkpoint: Checkpoint
) -> None:
    """Write configuration, safetensors, tokenizer and model card.

    The model is assembled on the meta device from the trained tensors themselves, so nothing is copied.

    :raises ModelError: where the parts do not make up the family's whole model.
    """
    shell: Any = head.shell
    with torch.device("meta"):
        whole = _auto(task.kind).from_config(deepcopy(shell.config))
    prefix = shell.base_model_prefix
    state = {f"{prefix}.{name}": tensor for name, tensor in plain_state(body).items()}
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
    checkpoint.tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(model_card(task, checkpoint), encoding="utf-8")


def model_card(task: Task, checkpoint: Checkpoint) -> str:
    """The exported model's README, with the front matter that model hubs read."""
    token = task.kind == "token"
    pipeline = "token-classification" if token else "text-classification"
    pair = "text_pair" in task.splits["train"].column_names
    example = '{"text": "…", "text_pair": "…"}' if pair else '"…"'
    labels = "\n".join(f"- `{name}`" for name in task.label_names) or "- a number"
    return f"""---
library_name: transformers
pipeline_tag: {pipeline}
base_model: {checkpoint.known_as}
metrics:
- {task.metric}
tags:
- aang
---

# {task.name}

{checkpoint.known_as}, fine-tuned on the task `{task.name}` ({task.kind}) by aang.
It needs nothing but transformers:

```python
from transformers import pipeline

pipeline("{pipeline}", "path/to/this/folder")({example})
```

It answers with

{labels}

The run's `report.json` holds the method, development and test results, and the auxiliary objectives, where the
method has any, with their weights (Dery et al., AANG, ICLR 2023).
"""


class ExportedModel:
    """A folder that `export_model` wrote, loaded from its files alone; a `prediction.Predictor`.

    :param max_length: positions of the longest row; a lower limit of the tokenizer is kept.
    """

    def __init__(self, directory: Path, max_length: int, device: torch.device) -> None:
        from transformers import AutoConfig, AutoTokenizer

        from aang_text.tokens import Tokens

        try:
            with quiet():
                config: Any = AutoConfig.from_pretrained(directory)
                token = config.architectures[0].endswith("ForTokenClassification")
                loader = _auto("token" if token else "class")
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
        """Each example's logits on the CPU in fp32: [C], for token tasks [T, C]."""
        found: list[Tensor] = []
        for padded in self.tokens.padded(examples, _EVAL_ROWS):
            batch = padded.to(self.device)
            logits = self.model(**batch).logits.float().cpu()
            real = batch["attention_mask"].bool().cpu()
            token = self.kind == "token"
            found += [row[own] if token else row for row, own in zip(logits, real, strict=True)]
        return found


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
    logits = found.logits(examples)
    return torch.cat(logits) if found.kind == "token" else torch.stack(logits)
