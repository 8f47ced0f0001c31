"""The denoise head: hidden states → vocabulary logits, by the checkpoint's own masked-LM head where it has one.

M states, H their size, E the width of the input embeddings, V the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aang_text.classifier import Given

if TYPE_CHECKING:
    from aang_text.checkpoint import Checkpoint


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
