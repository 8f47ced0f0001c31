"""A small transformer over patches, and the classifier on its mean state. Both begin from random weights.

Linear and normalising layers see the N packed positions of a batch, attention sees its rows [B, T]; so the gradient of
each objective can be read off one backward pass. H hidden size, A attention heads, P pixels of a patch.
After Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aang_core.batch.rows import Hidden
from aang_core.batch.stream import FusedBatch
from aang_vision.images import PATCHES, Format

_KINDS = 3
"""A patch, a hidden patch, the whole image."""


@attrs.frozen(kw_only=True)
class Shape:
    """The size of an encoder, and the format of its images."""

    form: Format = attrs.field(factory=Format)
    hidden: int = 32
    layers: int = 2
    heads: int = 2
    dropout: float = 0.1


@attrs.frozen(eq=False)
class RowGrid:
    """Where the positions of a packed stream lie in rows of one length.

    :param gather: [B, T] stream positions; a short row's last one is repeated behind its end.
    :param scatter: [N] each stream position's place in the B · T.
    :param mask: [B, 1, T, T], 0 where a position may attend to another one, very small elsewhere; None where each may
        attend to its whole row.
    """

    gather: Tensor
    scatter: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, batch: FusedBatch, like: Tensor) -> RowGrid:
        """The plan of a batch, for states on the device and of the dtype of `like`."""
        lengths = torch.tensor(batch.lengths)
        place = torch.arange(int(lengths.max()))
        gather = batch.offsets[:-1, None] + place.minimum(lengths[:, None] - 1)
        scatter = (place < lengths[:, None]).flatten().nonzero().squeeze(1)
        mask = None
        if len(scatter) < gather.numel() or any(rule.tag != "full" for rule in batch.rules):
            hidden = ~_permitted(batch, len(place)).to(like.device)
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            mask = mask.masked_fill_(hidden, torch.finfo(like.dtype).min)
        return cls(gather.to(like.device), scatter.to(like.device), mask)


def _permitted(batch: FusedBatch, longest: int) -> Tensor:
    """[B, 1, T, T] bool: each row's own rule; positions behind its end see its first one and are dropped later."""
    allowed = torch.zeros(len(batch.rules), 1, longest, longest, dtype=torch.bool)
    allowed[..., 0] = True
    for row, (rule, length) in enumerate(zip(batch.rules, batch.lengths, strict=True)):
        matrix = rule.allowed
        allowed[row, 0, :length, :length] = rule.matrix(length) if matrix is None else matrix
    return allowed


class Layer(nn.Module):
    """One pre-norm layer, [N, H] → [N, H]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.hidden
        self.heads = shape.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, states: Tensor, plan: RowGrid) -> Tensor:
        normed = self.norm1(states)
        rows = [self._rows(layer(normed), plan) for layer in (self.query, self.key, self.value)]
        seen = F.scaled_dot_product_attention(rows[0], rows[1], rows[2], attn_mask=plan.mask)
        stream = seen.transpose(1, 2).flatten(2).flatten(0, 1)[plan.scatter]
        states = states + self.dropout(self.out(stream))
        changed: Tensor = self.dropout(self.down(F.gelu(self.up(self.norm2(states)))))
        return states + changed

    def _rows(self, stream: Tensor, plan: RowGrid) -> Tensor:
        """[N, H] → [B, A, T, H / A]."""
        rows: Tensor = stream[plan.gather].unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return rows


class PatchEncoder(nn.Module):
    """Patches [N, P] at their places [N] → states [N, H]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        form = shape.form
        self.pixels = nn.Linear(form.pixels, shape.hidden)
        self.kinds = nn.Embedding(_KINDS, shape.hidden)
        self.places = nn.Embedding(form.positions, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)
        # torch's own initial values would drown the pixels in places and kinds, and learning begin late
        nn.init.normal_(self.pixels.weight)
        nn.init.normal_(self.kinds.weight, std=0.02)

    def forward(
        self, patches: Tensor, places: Tensor, plan: RowGrid, covered: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """:param covered: the embedded pixels [N, H] as the layers get them; see `FusedBatch.covered`."""
        # 0 is the background, so what has no pixels is embedded as background of a kind of its own
        kinds = -patches[:, 0].clamp(max=0.0)
        embedded = covered(self.pixels(patches.clamp(min=0.0)))
        states = self.dropout(embedded + self.kinds(kinds.long()) + self.places(places))
        for layer in self.layers:
            states = layer(states, plan)
        normed: Tensor = self.norm(states)
        return normed


class ImageHead(nn.Module):
    """``head(hidden, rows)`` → logits [len(rows), C] from the mean of each row's states."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        self.dense, self.out = (
            nn.Linear(shape.hidden, shape.hidden),
            nn.Linear(shape.hidden, outputs),
        )
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, hidden: Hidden, rows: Tensor) -> Tensor:
        logits: Tensor = self.out(self.dropout(torch.tanh(self.dense(hidden.means(rows)))))
        return logits


def encode(body: nn.Module, batch: FusedBatch) -> Hidden:
    """One pass of a `PatchEncoder` over a packed stream."""
    weight = next(body.parameters())
    plan = RowGrid.of(batch, weight)
    starts = torch.repeat_interleave(batch.offsets[:-1], torch.tensor(batch.lengths))
    places = (torch.arange(batch.tokens) - starts).to(weight.device)
    patches = batch.inputs[PATCHES].to(weight.device, weight.dtype)
    return Hidden(body(patches, places, plan, batch.covered), batch.offsets)
