"""``training.pooling = "mean"``: the end-task's head reads the mean of a row, and the export is still a plain model.

A family's classification head reads the first position. One frozen layer after the encoder puts the mean there. Its
attention is uniform (Q = K = 0) over the states themselves (V = I), its output is 100 times the gathered
mean (O = 100 I) plus the residual, and its MLP adds nothing. At the first position it gives
``LN(LN(100 · mean + first))``, whose direction is the mean's (cosine over 0.999). In training `MeanReading` computes
that from the row's states, for the rows that the head reads; no other row passes the layer. R rows, H hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aang_core.batch.rows import Hidden
from aang_core.errors import ModelError
from aang_text.encoder.probes import tolerance
from aang_text.encoder.tuning import layers_of

if TYPE_CHECKING:
    from aang_text.encoder.checkpoint import Checkpoint

SCALE = 100.0
"""How much more the mean counts than the first position's own state, which the residual adds. With 30 the cosine of
MiniLM's answer with the mean is 0.9987 for a text of twenty tokens; half precision still holds 100 times a state."""


@attrs.frozen
class _Form:
    """The names of a layer's parts: what makes the values, what follows the attention, and the two norms."""

    value: str
    out: str
    norms: tuple[str, str]


_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
_FORMS = (
    _Form("attention.self.value", "attention.output.dense", _NORMS),
    _Form("attention.self.value_proj", "attention.output.dense", _NORMS),
    _Form("attention.v_lin", "attention.out_lin", ("sa_layer_norm", "output_layer_norm")),
)
"""BERT's layer and its kin's, DeBERTa's, DistilBERT's."""


@attrs.frozen
class MeanReading:
    """What the frozen layer answers at the first position of a row.

    :param eps: of the layer's two norms, in order.
    """

    eps: tuple[float, ...]

    def __call__(self, hidden: Hidden, rows: Tensor) -> Tensor:
        """[R, H], of R rows of `hidden`."""
        mixed = SCALE * hidden.means(rows) + hidden.first(rows)
        for eps in self.eps:
            mixed = F.layer_norm(mixed, mixed.shape[-1:], eps=eps)
        return mixed


def mean_reading(base: nn.Module, checkpoint: Checkpoint) -> MeanReading:
    """The reading of a family, after its frozen layer has been tried behind its encoder.

    :param base: the whole encoder on the CPU; the same afterwards.
    :raises ModelError: where a layer of this family cannot compute the mean.
    """
    found = _found(base)
    if found is None:
        raise refused(base, checkpoint, "its layers are not of a form that can compute it")
    _, layers, state = found
    layer = deepcopy(layers[-1]).eval()
    layer.load_state_dict(state)
    parts = dict(layer.named_modules())
    form = _form(layer)
    assert form is not None  # it has a state
    eps: list[Any] = [parts[norm].eps for norm in form.norms]
    reading = MeanReading(tuple(eps))
    difference = _difference(base, layers, layer, reading, checkpoint)
    if not difference <= tolerance(checkpoint.dtype):
        raise refused(base, checkpoint, f"a layer made for it is {difference:.1e} away from it")
    return reading


@torch.no_grad()
def begin_as_identity(pooler: nn.Module | None) -> None:
    """Let a pooler ``tanh(dense(x))`` begin as ``tanh(x)``; others, and families without one, stay as they are.

    A pretrained pooler knows the first position's states, not the mean (docs/choices.md has the numbers). Its dense
    layer still counts as pretrained: it begins as what is known to read well, and so trains at the encoder's rate. A
    head that comes whole with the checkpoint has learned to read what it is given, and keeps its pooler.
    """
    dense = getattr(pooler, "dense", None)
    if isinstance(dense, nn.Linear) and isinstance(getattr(pooler, "activation", None), nn.Tanh):
        nn.init.eye_(dense.weight)
        nn.init.zeros_(dense.bias)


def layer_state(layer: nn.Module) -> dict[str, Tensor] | None:
    """The parameters of a layer that computes the mean; None where the form of `layer` is not known.

    Only shapes and types of `layer` matter: it may lie on the meta device.
    """
    form = _form(layer)
    if form is None:
        return None
    scales = {f"{form.value}.weight": 1.0, f"{form.out}.weight": SCALE}
    ones = {f"{norm}.weight" for norm in form.norms}
    state = {}
    for name, tensor in layer.state_dict().items():
        made = torch.zeros(tensor.shape, dtype=tensor.dtype)
        if name in scales:
            made.fill_diagonal_(scales[name])
        elif name in ones:
            made.fill_(1.0)
        state[name] = made
    return state


def mean_layer(base: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state of an encoder's last layer as one that computes the mean, under the names of the whole model.

    :param base: an encoder with one layer more than the trained one, of a family that `mean_reading` took.
    """
    stack, layers, state = _found(base) or ("", (), {})
    place = f"{prefix}.{stack}.{len(layers) - 1}"
    return {f"{place}.{name}": tensor for name, tensor in state.items()}


def _found(base: nn.Module) -> tuple[str, nn.ModuleList, dict[str, Tensor]] | None:
    """The name of an encoder's stack, its layers, and what the last one's parameters would be."""
    found = layers_of(base)
    state = None if found is None else layer_state(found[1][-1])
    return None if found is None or state is None else (*found, state)


def _form(layer: nn.Module) -> _Form | None:
    parts: Mapping[str, Any] = dict(layer.named_modules())
    for form in _FORMS:
        if {form.value, form.out, *form.norms} <= parts.keys():
            shapes = [tuple(parts[name].weight.shape) for name in (form.value, form.out)]
            return form if all(rows == columns for rows, columns in shapes) else None
    return None


@torch.no_grad()
def _difference(
    base: Any, stack: nn.ModuleList, layer: nn.Module, reading: MeanReading, checkpoint: Checkpoint
) -> float:
    """The largest difference between the encoder with `layer` behind it and `reading`, on two texts of which one is
    padded; infinite where the encoder cannot take a further layer."""
    mode = base.training
    base.eval()
    padded = checkpoint.tokenizer(["one text", "a second text, longer"], padding=True)
    ids, mask = (torch.tensor(padded[name]) for name in ("input_ids", "attention_mask"))
    states = base(input_ids=ids, attention_mask=mask).last_hidden_state
    offsets = torch.tensor([0, *mask.sum(1).tolist()]).cumsum(0)
    wanted = reading(Hidden(states[mask.bool()], offsets), torch.arange(2))
    stack.append(layer)
    base.config.num_hidden_layers += 1
    try:
        found = base(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    except (RuntimeError, IndexError):  # a list in the configuration that has an entry a layer
        return float("inf")
    finally:
        del stack[-1]
        base.config.num_hidden_layers -= 1
        base.train(mode)
    return float((found - wanted).abs().max())


def refused(base: nn.Module, checkpoint: Checkpoint, why: str) -> ModelError:
    """The error that says which families can."""
    return ModelError(
        f"training.pooling = 'mean' cannot be exported for {type(base).__name__} (model {checkpoint.name!r}): {why}. "
        "It can for BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, DistilBERT, DeBERTa-v2 and ModernBERT; leave "
        "training.pooling at 'default', or choose one of these"
    )
