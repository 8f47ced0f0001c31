"""Stage 1, ``neural-lm``: texts whose rows carry proposals, tokens sampled from a frozen masked language model.

ELECTRA (Clark et al., ICLR 2020, §2) trains its generator beside the discriminator; here it is frozen, as in the
paper's Figure 2, so the proposals are made once and kept. Each position of a text is masked once, 15 % of
the text at a time, and its proposal drawn from the model's distribution at temperature 1 (special tokens left
out). ``replace`` then shows a row's proposals at the positions that it selects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Generator, Tensor, nn

from aang_core.batch.packing import BoundObjective, fuse, pack_rows, prepare
from aang_core.batch.parts import distinct
from aang_core.batch.protocols import BackboneSettings, Binding, BoundSource
from aang_core.batch.rows import Layout, Origin, Row
from aang_core.batch.stream import FULL, FusedBatch
from aang_core.errors import ConfigError, ModelError, TaskError
from aang_core.randomness import evaluating
from aang_core.train.evaluation import by_length
from aang_text.data.sources import CorpusTexts, TaskTexts
from aang_text.data.stored import digest, place_of, read, tokenizer_digest, weights_digest, write
from aang_text.encoder.tokens import IDS
from aang_text.outputs.vocabulary import Denoise
from aang_text.representations import bidirectional
from aang_text.transforms import Mask

RATE = 0.15
PASSES = 7
"""Passes over a text: the fewest in which 15 % at a time reach every position."""

_FIT_ROWS = 32
_FIT_LR = 1e-3
_FORMAT = 1
_CORPORA = ("task", "in-domain", "out-of-domain")


class NeuralLm:
    """Texts of the task or of a corpus, with proposals.

    Options: ``corpus``, which texts; ``model``, the masked language model (empty: the run's own encoder, in the
    state of its checkpoint); ``fit_steps``, for how many steps a denoise head is fitted on the texts where the model
    comes without one; ``texts``, how many texts at the most, drawn at random (0: all); ``seed``.
    """

    def __init__(self, binding: Binding) -> None:
        self.texts = _texts(binding)
        self.provides: frozenset[str] = frozenset()
        most = int(binding.options["texts"]) or len(self.texts)
        draw = torch.Generator().manual_seed(int(binding.options["seed"]))
        self.count = min(most, len(self.texts))
        self._rows: list[Row] = []
        if binding.backbone is not None:
            everything = list(self.texts.rows())
            chosen = sorted(distinct(len(everything), self.count, draw))
            self._rows = with_proposals(binding, self.texts, [everything[i] for i in chosen])

    def __len__(self) -> int:
        return self.count

    def rows(self) -> Iterator[Row]:
        """Every row once, in order."""
        yield from self._rows

    def examples(self) -> Iterator[tuple[Origin, Mapping[str, Any]]]:
        """The texts of these rows."""
        chosen = {row.origin for row in self._rows}
        return (found for found in self.texts.examples() if found[0] in chosen)

    def draw(self, layout: Layout, count: int, generator: Generator) -> list[Row]:
        """Rows drawn uniformly; distinct within one call while there are enough of them."""
        views = 2 if layout.kind == "two-views" else 1
        numbers = distinct(len(self), -(-count // views), generator)
        return [self._rows[n] for n in numbers for _ in range(views)][:count]


def _texts(binding: Binding) -> TaskTexts | CorpusTexts:
    """:raises ConfigError: for an unknown corpus.
    :raises TaskError: where there are no such texts, or the encoder has no vocabulary to propose from.
    """
    name = binding.options["corpus"]
    if name not in _CORPORA:
        raise ConfigError(
            f"[primitives.neural-lm] corpus: expected one of {', '.join(_CORPORA)}, found {name!r}"
        )
    texts = TaskTexts(binding) if name == "task" else CorpusTexts(name, binding)
    backbone = binding.backbone
    if backbone is not None and "backbone:vocabulary" not in backbone.capabilities:
        raise TaskError(
            f"neural-lm needs backbone:vocabulary; the encoder {backbone.name!r} does not provide it"
        )
    return texts


def with_proposals(binding: Binding, texts: BoundSource, rows: Sequence[Row]) -> list[Row]:
    """The rows with their proposals, from the cache or made now.

    :param texts: where a new head is fitted.
    :raises ModelError: where the named model reads texts in another way than the encoder.
    """
    teacher = _teacher(binding)
    settings = _settings(binding, teacher, rows)
    place = place_of(binding.cache, "proposals", settings)
    stored = read(place, settings)
    if stored is None:
        made = propose(binding, teacher, texts, rows)
        write(place, settings, {"proposals": torch.cat(made).to(torch.int32)})
    else:
        made = list(stored["proposals"].long().split([len(row) for row in rows]))
    return [attrs.evolve(r, proposals=p, label=None) for r, p in zip(rows, made, strict=True)]


def _teacher(binding: Binding) -> Any:
    """The masked language model: the run's encoder, or another one that has the same tokenizer."""
    own: Any = binding.backbone
    name = str(binding.options["model"])
    if not name:
        return own
    from aang_text.encoder.backbone import load

    settings = BackboneSettings(
        max_length=own.max_length, device=str(next(own.body.parameters()).device)
    )
    other = load(name, settings)
    mine, theirs = _reading_of(own), _reading_of(other)
    if mine != theirs:
        raise ModelError(
            f"[primitives.neural-lm] model: the proposals of {name!r} would be made with another tokenizer "
            f"(digest {theirs[:12]}) than that of {own.name!r} ({mine[:12]}), so that their numbers would mean "
            "other tokens; expected a masked language model with the encoder's own tokenizer"
        )
    if other.mask_id is None:
        raise ModelError(f"[primitives.neural-lm] model: {name!r} has no mask token to predict")
    return other


def _reading_of(backbone: Any) -> str:
    """How a backbone reads texts, as a digest: that of its tokenizer, or of its name where it has none."""
    tokenizer = getattr(backbone, "tokenizer", None)
    if tokenizer is not None:
        return tokenizer_digest(tokenizer)
    return digest([f"{backbone.name} {backbone.vocab_size}".encode()])


def _settings(binding: Binding, teacher: Any, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that the proposals depend on; the key of the cache."""
    return {
        "format": _FORMAT,
        "model": teacher.name,
        "weights": weights_digest(teacher.body),
        "tokenizer": _reading_of(teacher),
        "texts": digest(row.inputs[IDS].numpy().tobytes() for row in rows),
        "fit_steps": 0 if has_own_head(teacher) else int(binding.options["fit_steps"]),
        "seed": int(binding.options["seed"]),
    }


def has_own_head(backbone: Any) -> bool:
    """Whether the checkpoint comes with a masked-LM head."""
    from aang_text.encoder.heads import own_parts

    checkpoint = getattr(backbone, "checkpoint", None)
    return checkpoint is not None and own_parts(checkpoint) is not None


def propose(
    binding: Binding, teacher: Any, texts: BoundSource, rows: Sequence[Row]
) -> list[Tensor]:
    """Each row's proposals, [T] long, −1 on special positions."""
    seed = int(binding.options["seed"])
    draw = torch.Generator().manual_seed(seed)
    bound = attrs.evolve(binding, backbone=teacher, options={"rate": RATE}, source=texts, seed=seed)
    if has_own_head(teacher):
        head = Denoise(bound).head()
    else:
        head = fitted_head(bound, int(binding.options["fit_steps"]), draw)
    groups = [_groups(row.special, draw) for row in rows]
    made = [torch.full((len(row),), -1) for row in rows]
    batches = list(by_length([len(row) for row in rows]))
    with evaluating(teacher.body), evaluating(head), torch.no_grad():
        for done, batch in enumerate(batches):
            binding.progress("neural-lm: sampling proposals", done, len(batches))
            for turn in range(PASSES):
                _one_pass(
                    teacher, head, rows, batch, [groups[i] == turn for i in batch], made, draw
                )
    binding.progress("neural-lm: sampling proposals", len(batches), len(batches))
    return made


def fitted_head(binding: Binding, steps: int, generator: Generator) -> nn.Module:
    """A denoise head fitted on the bound texts, the encoder frozen, for a model that comes without one."""
    assert binding.source is not None
    assert binding.backbone is not None
    output = Denoise(binding)
    whole = BoundObjective(
        "neural-lm", binding.source, Mask(binding), bidirectional(binding), output
    )
    head = output.head()
    optimizer = torch.optim.AdamW(head.parameters(), lr=_FIT_LR)
    body = binding.backbone.body
    device = next(body.parameters()).device
    for step in range(steps):
        binding.progress("neural-lm: fitting a denoise head", step, steps)
        piece = prepare(whole, _FIT_ROWS, generator)
        with evaluating(body), torch.no_grad():
            hidden = binding.backbone.encode(fuse([(0, piece)]).to(device))
        optimizer.zero_grad()
        loss = output.losses(head, hidden, piece.targets.to(device)).mean()
        torch.autograd.backward(loss, inputs=list(head.parameters()))
        optimizer.step()
    binding.progress("neural-lm: fitting a denoise head", steps, steps)
    return head


def _groups(special: Tensor, generator: Generator) -> Tensor:
    """[T] the pass in which each position is masked, −1 on special ones; the passes are as equal as can be."""
    group = torch.full(special.shape, -1)
    places = (~special).nonzero().squeeze(1)
    order = torch.randperm(len(places), generator=generator)
    group[places[order]] = torch.arange(len(places)) % PASSES
    return group


def _one_pass(
    teacher: Any,
    head: nn.Module,
    rows: Sequence[Row],
    batch: Sequence[int],
    hidden_places: Sequence[Tensor],
    made: list[Tensor],
    generator: Generator,
) -> None:
    """Mask some positions of some rows, and write a draw for each of them into `made`."""
    masked = torch.cat(list(hidden_places))
    if not bool(masked.any()):
        return
    inputs, offsets = pack_rows([rows[i] for i in batch])
    shown = _known_inputs(teacher, inputs)
    shown[IDS] = torch.where(masked, int(teacher.mask_id), inputs[IDS])
    device = next(teacher.body.parameters()).device
    stream = FusedBatch(inputs=shown, offsets=offsets, rules=(FULL,) * len(batch)).to(device)
    states = teacher.encode(stream).states[masked.to(device)]
    logits = head(states)[:, teacher.replaceable.to(device)].float().cpu()
    chosen = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    drawn = torch.full(masked.shape, -1)
    drawn[masked] = teacher.replaceable[chosen]
    for i, places, part in zip(
        batch, hidden_places, drawn.split([len(p) for p in hidden_places]), strict=True
    ):
        made[i] = torch.where(places, part, made[i])


def _known_inputs(teacher: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that the teacher's family reads."""
    tokens = getattr(teacher, "tokens", None)
    return {n: v for n, v in inputs.items() if tokens is None or n in tokens.inputs}
