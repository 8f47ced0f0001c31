"""The tiny encoder that the contract kit and the tests run on: real, pure torch, no text library.

Its "texts" are integers in a string, ``"3 17 120"``. An integer below 93 is one piece, a larger one
two, so that words and pieces differ as they do in a real vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aang_core.batch.packing import plain_batch
from aang_core.batch.rows import Hidden, Origin, Row
from aang_core.batch.stream import FusedBatch

if TYPE_CHECKING:
    from aang_core.data.task import Task

PAD, CLS, SEP, MASK = range(4)
VOCABULARY = 97
HIDDEN = 32
HEADS = 2
LAYERS = 2
MAX_LENGTH = 64
_WORDS = VOCABULARY - 4
_ABILITIES = frozenset({"backbone:row-attention", "backbone:vocabulary"})
_SENTENCE = 5  # words to a "sentence"


class TinyLayer(nn.Module):
    """One pre-norm layer; linear layers see N packed positions, attention one row at a time."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.query, self.key = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.value, self.out = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, 2 * HIDDEN), nn.Linear(2 * HIDDEN, HIDDEN)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: tuple[int, ...], masks: Sequence[Tensor]) -> Tensor:
        y = self.norm1(x)
        split = [layer(y).split(lengths) for layer in (self.query, self.key, self.value)]
        rows = [_attend(q, k, v, mask) for q, k, v, mask in zip(*split, masks, strict=True)]
        x = x + self.dropout(self.out(torch.cat(rows)))
        changed: Tensor = self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))
        return x + changed


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of one row, [T, H] each; `mask` [T, T] bool."""
    q, k, v = (x.view(len(x), HEADS, -1).transpose(0, 1) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~mask.to(scores.device), torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


class TinyBody(nn.Module):
    """Embeddings and two layers. ``forward(ids [N], positions [N], …)`` → [N, H]."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, HIDDEN)
        self.places = nn.Embedding(MAX_LENGTH, HIDDEN)
        self.layers = nn.ModuleList(TinyLayer(dropout) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(HIDDEN)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        lengths: tuple[int, ...],
        masks: Sequence[Tensor],
        covered: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        words = self.words(ids)
        words = words if covered is None else covered(words)
        x = self.dropout(words + self.places(positions))
        for layer in self.layers:
            x = layer(x, lengths, masks)
        normed: Tensor = self.norm(x)
        return normed


class _Elsewhere:
    """A parameter of another module, which `parameters()` and deep copies of the holder leave alone."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter

    def __deepcopy__(self, memo: dict[int, Any]) -> _Elsewhere:
        return self


class TinyVocabularyHead(nn.Module):
    """Dense, GELU, LayerNorm, then the decoder: the encoder's own embeddings where tied."""

    def __init__(self, words: Tensor, tied: bool) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN)
        self.untied = None if tied else nn.Parameter(words.detach().clone())
        self._tied = _Elsewhere(words)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))
        self.to(words.device, words.dtype)

    @property
    def decoder_weight(self) -> Tensor:
        """[V, E]."""
        return self._tied.parameter if self.untied is None else self.untied

    def project(self, states: Tensor) -> Tensor:
        """[M, H] → [M, E], what the decoder is multiplied with."""
        projected: Tensor = self.norm(F.gelu(self.dense(states)))
        return projected

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(self.project(states), self.decoder_weight, self.bias)


class TinyTaskHead(nn.Module):
    """``head(hidden, index)`` → [len(index), C]; index counts rows, positions for token tasks."""

    def __init__(self, outputs: int, token: bool) -> None:
        super().__init__()
        self.token = token
        self.dense, self.classify = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, outputs)

    def forward(self, hidden: Hidden, index: Tensor) -> Tensor:
        states = hidden.states[index] if self.token else hidden.first(index)
        logits: Tensor = self.classify(torch.tanh(self.dense(states)))
        return logits


class TinyBackbone:
    """Satisfies `protocols.Backbone`, and offers the vocabulary that text primitives ask for."""

    name = "tiny"
    hidden_size = embedding_size = HIDDEN
    max_length = MAX_LENGTH
    packed = True
    vocab_size = VOCABULARY
    mask_id = MASK
    special_ids = frozenset({PAD, CLS, SEP, MASK})
    replaceable = torch.arange(4, VOCABULARY)

    def __init__(self, dtype: torch.dtype, seed: int, dropout: float) -> None:
        self.dtype, self.seed = dtype, seed
        self.capabilities: frozenset[str] = _ABILITIES
        if dropout:
            self.capabilities |= {"backbone:dropout"}
        with _seeded(seed):
            self._tiny = TinyBody(dropout).to(dtype)
        self.body: nn.Module = self._tiny

    def rows(self, examples: Sequence[Mapping[str, Any]], origins: Sequence[Any]) -> list[Row]:
        """Integers in ``text`` (and ``text_pair``) as [CLS] pieces [SEP] (pieces [SEP])."""
        return [_row(e, o) for e, o in zip(examples, origins, strict=True)]

    def encode(self, batch: FusedBatch) -> Hidden:
        """One pass over the packed stream."""
        lengths = batch.lengths
        masks = [rule.matrix(n) for rule, n in zip(batch.rules, lengths, strict=True)]
        places = torch.cat([torch.arange(n) for n in lengths])
        device = self._tiny.words.weight.device
        ids = batch.inputs["input_ids"].to(device)
        return Hidden(
            self.body(ids, places.to(device), lengths, masks, batch.covered), batch.offsets
        )

    def vocabulary_head(self, tied: bool) -> TinyVocabularyHead:
        """A new head over the vocabulary; the same initial state every time."""
        with _seeded(self.seed + 1):
            return TinyVocabularyHead(self._tiny.words.weight, tied)

    def end_task_head(self, task: Task) -> TinyTaskHead:
        """A new head for the end-task; the same initial state every time."""
        with _seeded(self.seed + 2):
            return TinyTaskHead(task.num_outputs, task.kind == "token").to(
                self._tiny.words.weight.device, self.dtype
            )

    def decode(self, ids: Tensor) -> list[str]:
        """One string a piece."""
        names = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(_WORDS))]
        return [names[i] for i in ids.tolist()]

    def export(self, directory: Path, head: nn.Module, task: Task) -> None:
        """Weights as safetensors beside a small JSON file."""
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        tensors = {f"body.{k}": v.contiguous() for k, v in self.body.state_dict().items()}
        tensors |= {f"head.{k}": v.contiguous() for k, v in head.state_dict().items()}
        save_file(tensors, directory / "model.safetensors")
        facts = {"outputs": task.num_outputs, "token": task.kind == "token"}
        (directory / "config.json").write_text(json.dumps(facts), encoding="utf-8")

    def exported_logits(self, directory: Path, examples: Sequence[Mapping[str, Any]]) -> Tensor:
        """[len(examples), C] (positions for token tasks) from the files alone."""
        from safetensors.torch import load_file

        facts = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(directory / "model.safetensors")
        fresh = TinyBackbone(self.dtype, self.seed, 0.0)
        head = TinyTaskHead(facts["outputs"], facts["token"]).to(self.dtype)
        for prefix, module in (("body.", fresh.body), ("head.", head)):
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            module.load_state_dict(state)
        batch = plain_batch(fresh.rows(examples, [Origin("", i, 0) for i in range(len(examples))]))
        count = batch.tokens if facts["token"] else len(examples)
        with torch.no_grad():
            logits: Tensor = head(fresh.encode(batch), torch.arange(count))
        return logits


def tiny_backbone(
    dtype: torch.dtype = torch.float32, seed: int = 0, dropout: float = 0.0
) -> TinyBackbone:
    """A real two-layer encoder of 32 hidden units over 97 ids, the same for the same `seed`."""
    return TinyBackbone(dtype, seed, dropout)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator for layer initialisers, which take none, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _pieces(text: str | Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """(id, word, integer) of each piece of a text of integers, or of a list of them."""
    words = text.split() if isinstance(text, str) else text
    for word, integer in enumerate(map(int, words)):
        digits = [integer] if integer < _WORDS else [integer // _WORDS % _WORDS, integer % _WORDS]
        for digit in digits:
            yield 4 + digit, word, integer


def _row(example: Mapping[str, Any], origin: Origin) -> Row:
    marks: list[tuple[int, int, int, int]] = [(CLS, -1, -1, -1)]  # id, word, cased, sentence
    texts = [example[name] for name in ("text", "text_pair") if example.get(name)]
    room = (MAX_LENGTH - 1) // max(1, len(texts)) - 1
    first = 0
    for text in texts:
        pieces = list(_pieces(text))[:room]
        marks += [(i, first + w, n % 3, (first + w) // _SENTENCE) for i, w, n in pieces]
        first = max(mark[1] for mark in marks) + 1
        marks.append((SEP, -1, -1, -1))
    ids, word, cased, sentence = torch.tensor(marks).unbind(1)
    return Row(
        inputs={"input_ids": ids.clone()},
        special=word < 0,
        origin=origin,
        marks={"word": word.clone(), "cased": cased.clone(), "sentence": sentence.clone()},
        label=example.get("label"),
    )
