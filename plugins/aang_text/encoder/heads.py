"""A checkpoint's own heads on hidden states that are already computed: the end-task's, and the masked-LM head.

A head is transformers' own ``…ForSequenceClassification`` whose encoder is replaced by `Given`, which hands over
the states it is called with. So every family keeps its own pooling, activation and dropout, and its export
(`aang_text.encoder.exported`) is exact. R rows, T positions of the longest, C logits; M states, H their size,
E the width of the input embeddings, V the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aang_core.batch.rows import Hidden
from aang_core.errors import ModelError
from aang_text.encoder.pooling import MeanReading, begin_as_identity, mean_reading, refused

if TYPE_CHECKING:
    from aang_core.data.task import Task
    from aang_text.encoder.checkpoint import Checkpoint

PROBLEMS = {
    "class": "single_label_classification",
    "regression": "regression",
    "multilabel": "multi_label_classification",
}
"""Kind of task → what transformers calls it; token tasks have no name there."""


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

    :param lacking: names of the shell's parameters that the checkpoint does not hold.
    :param reading: what the shell is given as each row's first position in place of its state there; see `pooling`.
    :ivar first_only: whether the family's head reads nothing but each row's first position, so that no row is
        padded for it.
    :ivar pretrained_names: what the checkpoint brings (a pooler, a head for these labels); see `BoundOutput.head`.
    """

    def __init__(
        self,
        shell: nn.Module,
        kind: str,
        lacking: frozenset[str],
        reading: MeanReading | None = None,
    ) -> None:
        super().__init__()
        self.shell, self.reading = shell, reading
        brought = (name for name, _ in shell.named_parameters() if name not in lacking)
        self.pretrained_names = frozenset(f"shell.{name}" for name in brought)
        self.kind = kind
        self.first_only = kind != "token" and _reads_first_only(shell)

    def forward(self, hidden: Hidden, rows: Tensor) -> Tensor:
        if self.kind == "token":  # these heads read every position by itself
            states = hidden.states[rows][:, None]
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
            return self._logits(states, mask)[:, 0]
        if self.first_only:
            first = hidden.first(rows) if self.reading is None else self.reading(hidden, rows)
            states = first[:, None]
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
            return self._logits(states, mask)
        states, real = hidden.padded(rows)
        return self._logits(states, real.long())

    def _logits(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.shell(inputs_embeds=states, attention_mask=mask).logits  # type: ignore[no-any-return]


def make_head(checkpoint: Checkpoint, task: Task, pooling: str = "default") -> ClassifierHead:
    """The head of the checkpoint's family for a task, on the CPU, in its initial state.

    :param pooling: ``default``: what the family's head reads; ``mean``: the mean of the row's positions; ``auto``: the
        mean where the checkpoint was trained to be read so, and where it can be exported, else as ``default``.
    :raises ModelError: where the family has no such head, or one that cannot run without its encoder, or cannot read
        the mean.
    """
    if pooling == "auto":
        if task.kind == "token" or not checkpoint.reads_mean:
            return make_head(checkpoint, task, "default")
        try:
            return make_head(checkpoint, task, "mean")
        except ModelError:  # a family that cannot be exported so, which the user did not ask for
            return make_head(checkpoint, task, "default")
    if pooling == "mean" and task.kind == "token":
        raise ModelError(
            f"training.pooling = 'mean' is for one answer a text; the task {task.name!r} asks for one a word: leave it "
            "at 'default'"
        )
    changes = _labels(task)
    own = pooling == "mean" and hasattr(checkpoint.config, "classifier_pooling")  # ModernBERT
    if own:
        changes["classifier_pooling"] = "mean"
    model, lacking = checkpoint.build(auto_class(task.kind), **changes)
    prefix = str(model.base_model_prefix)
    base = getattr(model, prefix)
    reading = mean_reading(base, checkpoint) if pooling == "mean" and not own else None
    given = Given(getattr(base, "pooler", None), getattr(base, "pooler_activation", None))
    _check_pooling(base, given, checkpoint)
    setattr(model, prefix, given)
    if reading is not None and lacking:
        begin_as_identity(given.pooler)
    head = ClassifierHead(model, task.kind, lacking, reading)
    if reading is not None and not head.first_only:
        raise refused(base, checkpoint, "its head reads other positions than the first")
    return head


def auto_class(kind: str) -> Any:
    """The auto class of transformers for a kind of task."""
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


class _Shared:
    """Refers to a parameter that belongs to another module. A plain object: neither `parameters()` nor a state
    dict sees through it, so no optimiser has the parameter twice, and a deep copy still refers to the original."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


class VocabularyHead(nn.Module):
    """``decoder(project(states)) + bias``.

    With a tied decoder, `decoder_weight` is the encoder's own embedding matrix: it is in the encoder's
    `parameters()` and not in this module's; gradients reach it all the same.

    :param projection: [M, H] → [M, E].
    :param decoder: [V, E], the encoder's embedding matrix; copied where not `tied`.
    :param bias: [V].
    :param pretrained: whether the embedding matrix comes from a checkpoint.
    :ivar pretrained_names: what a checkpoint brings: its own masked-LM head, and a copy of its embeddings.
    """

    def __init__(
        self,
        projection: nn.Module,
        decoder: nn.Parameter,
        bias: Tensor,
        tied: bool,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.projection = projection
        self.bias = nn.Parameter(bias.detach().clone())
        self.tied = tied
        if tied:
            self._shared = _Shared(decoder)
        else:
            self.untied_weight = nn.Parameter(decoder.detach().clone())
        names = {"untied_weight"} if pretrained and not tied else set()
        if isinstance(projection, OwnProjection):
            names |= {"bias", *(f"projection.{name}" for name, _ in projection.named_parameters())}
        self.pretrained_names = frozenset(names)

    @property
    def decoder_weight(self) -> nn.Parameter:
        """[V, E]."""
        return self._shared.parameter if self.tied else self.untied_weight

    def project(self, states: Tensor) -> Tensor:
        """[M, H] → [M, E], with this head's own parameters only."""
        return self.projection(states)  # type: ignore[no-any-return]

    def forward(self, states: Tensor) -> Tensor:
        """[M, H] → [M, V]."""
        return F.linear(self.project(states), self.decoder_weight, self.bias)


class OwnProjection(nn.Module):
    """A family's masked-LM head without its encoder and its decoder."""

    def __init__(self, shell: nn.Module) -> None:
        super().__init__()
        self.shell = shell

    def forward(self, states: Tensor) -> Tensor:
        """[M, H] → [M, E]."""
        return self.shell(inputs_embeds=states[:, None]).logits[:, 0]  # type: ignore[no-any-return]


class FreshProjection(nn.Sequential):
    """Dense, GELU, LayerNorm: BERT's head (Devlin et al., NAACL 2019) for encoders that come without one."""

    def __init__(self, hidden: int, width: int, std: float, generator: torch.Generator) -> None:
        dense = nn.Linear(hidden, width)
        with torch.no_grad():
            dense.weight.normal_(0.0, std, generator=generator)
            dense.bias.zero_()
        super().__init__(dense, nn.GELU(), nn.LayerNorm(width))


def make_vocabulary_parts(
    checkpoint: Checkpoint, hidden: int, width: int, rows: int
) -> tuple[nn.Module, Tensor]:
    """The projection and decoder bias of a checkpoint's masked-LM head, or fresh ones, on the CPU.

    :param hidden: H.
    :param width: E.
    :param rows: V, the rows of the input embeddings.
    """
    own = own_parts(checkpoint)
    if own is not None and own[1].shape == (rows,):
        return own
    generator = torch.Generator().manual_seed(checkpoint.seed)
    std = getattr(checkpoint.config, "initializer_range", 0.02)
    # Drawn outside the global generator, so that asking for a head changes no other draw.
    with torch.random.fork_rng(devices=[]):
        fresh = FreshProjection(hidden, width, std, generator).to(checkpoint.dtype)
    return fresh, torch.zeros(rows, dtype=checkpoint.dtype)


def own_parts(checkpoint: Checkpoint) -> tuple[nn.Module, Tensor] | None:
    """The checkpoint's own head, or None where any of its parameters is missing from the files."""
    from transformers import AutoModelForMaskedLM

    known = AutoModelForMaskedLM._model_mapping
    if checkpoint.path is None or type(checkpoint.config) not in known:
        return None
    model, lacking = checkpoint.build(AutoModelForMaskedLM)
    shell: Any = model
    decoder = shell.get_output_embeddings()
    if lacking or not isinstance(decoder, nn.Linear):
        return None
    bias = decoder.bias if decoder.bias is not None else torch.zeros(decoder.out_features)
    setattr(shell, shell.base_model_prefix, Given(None, None))
    for module in list(shell.modules()):
        for name, child in list(module.named_children()):
            if child is decoder:
                setattr(module, name, nn.Identity())
        for name, parameter in list(module.named_parameters(recurse=False)):
            # Families keep the decoder's bias a second time beside it; the head has its own.
            if parameter is bias:
                module.register_parameter(name, None)
    return OwnProjection(shell), bias.detach()
