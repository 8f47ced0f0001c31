"""Step 6 of 9. In: FusedBatch. Out: Hidden. Any encoder of transformers, with every row under its own rule.

There are two ways through an encoder. *Packed*: the whole batch as one stream [1, N], attention from
`aang_text.encoder.attention`. *Padded*: groups of rows [R, T] with the family's own padding mask, every row unmasked,
for families whose layers never call a registered attention function. The probes choose the way; there is no list of
names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aang_core.batch.parts import device_named
from aang_core.batch.protocols import BackboneSettings
from aang_core.batch.rows import Hidden, Origin, Row
from aang_core.batch.stream import FusedBatch, RowRule
from aang_core.errors import ModelError
from aang_text.encoder import attention, probes
from aang_text.encoder.checkpoint import Checkpoint, open_checkpoint, quiet
from aang_text.encoder.exported import export_model, exported_logits
from aang_text.encoder.heads import ClassifierHead, VocabularyHead, make_head, make_vocabulary_parts
from aang_text.encoder.tokens import Tokens
from aang_text.encoder.tuning import add_adapters, freeze_lower_layers

if TYPE_CHECKING:
    from aang_core.data.task import Task


def load(model: str, settings: BackboneSettings) -> HuggingFaceBackbone:
    """Open a checkpoint, load it and probe it.

    :param model: ``bundled:minilm``, ``scratch:tiny``, a folder, or a hub id.
    :raises ModelError: where it cannot be found or read, is no encoder, or fails the probes both ways.
    """
    return HuggingFaceBackbone(open_checkpoint(model, settings.dtype, settings.seed), settings)


class HuggingFaceBackbone:
    """An encoder of transformers; a `protocols.Backbone`, and what text primitives ask beside.

    :ivar tokens: the tokenizer with its limit; `truncated` counts the texts that were cut.
    :ivar mask_id: the mask token, or None.
    :ivar vocab_size: V, the rows of the input embeddings.
    :ivar replaceable: [V'] ids that may stand for another token: all that are not special.
    """

    def __init__(self, checkpoint: Checkpoint, settings: BackboneSettings) -> None:
        import transformers

        self.name = checkpoint.name
        self.checkpoint = checkpoint
        self.device = device_named(settings.device)
        body, _ = checkpoint.build(transformers.AutoModel)
        self.body: Any = body.to(self.device)
        parameters = inspect.signature(self.body.forward).parameters
        self._inputs = frozenset(parameters)
        self._keywords = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.tokenizer = checkpoint.tokenizer
        self.mask_id: int | None = self.tokenizer.mask_token_id
        special = frozenset(self.tokenizer.all_special_ids)
        ordinary = [i for i in range(len(self.tokenizer)) if i not in special]
        self.replaceable = torch.tensor(ordinary)
        embeddings = self.body.get_input_embeddings()
        self.vocab_size, self.embedding_size = embeddings.weight.shape
        self.packed, self._first_position = False, 0
        self.hidden_size = self._settle()
        self.max_length = _limit(settings.max_length, self.body.config, self._first_position)
        self.tokens = Tokens(
            self.tokenizer,
            self.max_length,
            self._inputs & frozenset(self.tokenizer.model_input_names),
        )
        self.capabilities = self._capabilities()
        self.pooling = settings.pooling
        self._heads: dict[tuple[str, tuple[str, ...]], ClassifierHead] = {}
        self._vocabulary: tuple[nn.Module, Tensor] | None = None
        self._tune(settings)

    def rows(self, examples: Sequence[Mapping[str, Any]], origins: Sequence[Origin]) -> list[Row]:
        """Examples as rows, cut at `max_length`; see `tokens.Tokens.rows`."""
        return self.tokens.rows(examples, origins)

    @property
    def truncated(self) -> int:
        """How many texts have been cut so far."""
        return self.tokens.truncated

    def pieces(self, ids: Tensor) -> list[str]:
        """[T] ids as T readable tokens."""
        return [str(self.tokenizer.decode([each])).strip() for each in ids.tolist()]

    def encode(self, batch: FusedBatch) -> Hidden:
        """One forward pass over a packed stream.

        :raises ModelError: for a rule other than ``full`` where the family ignores attention rules.
        """
        place = torch.arange(batch.tokens) - torch.repeat_interleave(
            batch.offsets[:-1], batch.offsets[1:] - batch.offsets[:-1]
        )
        inputs = dict(batch.inputs)
        if "position_ids" in self._inputs:
            inputs["position_ids"] = place + self._first_position
        if "token_type_ids" in self._inputs and "token_type_ids" not in inputs:
            inputs["token_type_ids"] = torch.zeros_like(place)
        moved = {name: ids.to(self.device, non_blocking=True) for name, ids in inputs.items()}
        if batch.noise is not None or batch.dropped is not None:
            embedded = self.body.get_input_embeddings()(moved.pop("input_ids")[None])[0]
            moved["inputs_embeds"] = batch.covered(embedded)
        plan = attention.make_plan(batch.lengths, batch.rules, self.device)
        states = self._packed(moved, plan) if self.packed else self._padded(moved, plan)
        return Hidden(states=states, offsets=batch.offsets)

    def _packed(self, inputs: Mapping[str, Tensor], plan: attention.LengthGroups) -> Tensor:
        """[N, H] from one stream."""
        stream = {name: value[None] for name, value in inputs.items()}
        return self.body(**stream, aang_plan=plan).last_hidden_state[0]  # type: ignore[no-any-return]

    def _padded(self, inputs: Mapping[str, Tensor], plan: attention.LengthGroups) -> Tensor:
        """[N, H] from groups of padded rows."""
        if any(rule.tag != "full" for group in plan.groups for rule in group.rules):
            raise ModelError(
                f"{type(self.body).__name__} (model {self.name!r}) ignores attention rules, so every row must see "
                "all of itself; choose objectives with the representation 'bidirectional', or another encoder"
            )
        sizes = [len(group.lengths) * group.longest for group in plan.groups]
        places = torch.split(plan.gather, sizes)
        answers = []
        for group, index in zip(plan.groups, places, strict=True):
            shape = (len(group.lengths), group.longest)
            length = torch.tensor(group.lengths, device=self.device)
            mask = torch.arange(group.longest, device=self.device)[None, :] < length[:, None]
            padded = {
                name: value[index].reshape(*shape, *value.shape[1:])
                for name, value in inputs.items()
            }
            if "input_ids" in padded and self.tokenizer.pad_token_id is not None:
                padded["input_ids"] = padded["input_ids"].masked_fill(
                    ~mask, self.tokenizer.pad_token_id
                )
            states = self.body(**padded, attention_mask=mask.long()).last_hidden_state
            answers.append(states.flatten(0, 1))
        return torch.cat(answers)[plan.scatter]

    def end_task_head(self, task: Task) -> ClassifierHead:
        """The family's classification head, pooler included, in the same initial state at every call.

        :raises ModelError: where the family has none, or none that can read the mean where ``training.pooling`` asks.
        """
        key = (task.kind, task.label_names)
        if key not in self._heads:
            self._heads[key] = make_head(self.checkpoint, task, self.pooling).to(self.device)
        return deepcopy(self._heads[key])

    def vocabulary_head(self, tied: bool) -> VocabularyHead:
        """A denoise head in the same initial state at every call.

        :param tied: decode with the encoder's own embedding matrix; else with a copy of it (paper).
        """
        weight = self.body.get_input_embeddings().weight
        if self._vocabulary is None:
            self._vocabulary = make_vocabulary_parts(
                self.checkpoint, self.hidden_size, self.embedding_size, self.vocab_size
            )
        projection, bias = self._vocabulary
        pretrained = self.checkpoint.path is not None
        head = VocabularyHead(deepcopy(projection), weight, bias, tied, pretrained)
        return head.to(self.device)

    def export(self, directory: Path, head: nn.Module, task: Task) -> None:
        """Write a model that loads with transformers alone.

        :raises ModelError: where `head` did not come from `end_task_head`.
        """
        if not isinstance(head, ClassifierHead):
            raise ModelError(f"expected a head of end_task_head, got {type(head).__name__}")
        export_model(directory, self.body, head, task, self.checkpoint)

    def exported_logits(self, directory: Path, examples: Sequence[Mapping[str, Any]]) -> Tensor:
        """[len(examples), C] from the files alone."""
        return exported_logits(directory, examples, self.tokens, self.device)

    def _tune(self, settings: BackboneSettings) -> None:
        """What trains, and whether activations are kept."""
        if settings.frozen_layers:
            freeze_lower_layers(self.body, settings.frozen_layers)
        if settings.lora_rank:
            add_adapters(self.body, settings.lora_rank, settings.seed)
        if settings.checkpointing:
            if not self.body.supports_gradient_checkpointing:
                raise ModelError(
                    f"{type(self.body).__name__} (model {self.name!r}) cannot recompute activations; "
                    "leave training.activation_checkpointing off"
                )
            enable = getattr(self.body, "activation_checkpointing_enable", None)  # the new name
            (enable or self.body.gradient_checkpointing_enable)({"use_reentrant": False})

    def _capabilities(self) -> frozenset[str]:
        found = {"backbone:row-attention"} if self.packed else set()
        if self.mask_id is not None:
            found.add("backbone:vocabulary")
        if self._varies():
            found.add("backbone:dropout")
        return frozenset(found)

    @torch.no_grad()
    def _varies(self) -> bool:
        """Whether two passes in training mode differ: dropout, wherever a family has it."""
        batch = probes.batch_of([self.replaceable[:9]], [RowRule()])
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(0)
            self.body.train()
            first, second = self.encode(batch), self.encode(batch)
            self.body.eval()
        return not torch.equal(first.states, second.states)

    def _settle(self) -> int:
        """Find out which way leads through this encoder; returns H.

        :raises ModelError: where the encoder reads left to right only, or neither way gives its own answers.
        """
        generator = torch.Generator().manual_seed(0)
        rows = probes.draw_rows(self.replaceable, probes.row_lengths(self.body.config), generator)
        self.body.eval()
        self._drop_unused(rows[0])
        with torch.no_grad():
            own = [self._own(row) for row in rows]
            self._refuse_decoder(rows[0], own[0])
            rules = probes.transitive_rules([len(row) for row in rows], generator)
            if self._switch_attention():
                self.packed = True
                try:
                    self.packed = self._settle_positions(rows, own) is None and not probes.leaks(
                        self.encode, rows, rules, self.replaceable
                    )
                except ModelError:
                    self.packed = False  # a layer that cannot be packed says so itself
                if not self.packed:
                    self.body.set_attn_implementation(self._own_attention)
            if not self.packed and (worst := self._settle_positions(rows, own)) is not None:
                raise ModelError(
                    f"{type(self.body).__name__} (model {self.name!r}) answers differently for a text among others "
                    f"than for the text alone (relative difference {worst:.1e}); it cannot be used, choose another"
                )
        return int(own[0].shape[-1])

    def _settle_positions(self, rows: Sequence[Tensor], own: Sequence[Tensor]) -> float | None:
        """Set the number of a row's first position (RoBERTa's family begins behind its padding index).

        :returns: None, or the smallest deviation where no choice gives the encoder's own answers.
        """
        padding = getattr(self.body.config, "pad_token_id", None)
        choices = [0] if padding is None or "position_ids" not in self._inputs else [0, padding + 1]
        found = []
        for self._first_position in choices:
            found.append(probes.parity(self.encode, rows, own))
            if found[-1] <= probes.tolerance(own[0].dtype):
                return None
        return min(found)

    def _own(self, ids: Tensor) -> Tensor:
        """[T, H]: the encoder's own answer to one text."""
        return self.body(input_ids=ids[None].to(self.device)).last_hidden_state[0]  # type: ignore[no-any-return]

    def _drop_unused(self, ids: Tensor) -> None:
        """Remove the pooler, which belongs to the head, and freeze what no state depends on."""
        if getattr(self.body, "pooler", None) is not None:
            self.body.pooler = None
        used = probes.used_parameters(self._own(ids))
        for parameter in self.body.parameters():
            parameter.requires_grad_(id(parameter) in used)

    def _refuse_decoder(self, ids: Tensor, own: Tensor) -> None:
        other = ids.clone()
        other[-1] = self.replaceable[(self.replaceable != ids[-1]).nonzero()[0, 0]]
        if torch.equal(self._own(other)[0], own[0]):
            raise ModelError(
                f"{type(self.body).__name__} (model {self.name!r}) reads left to right only; expected an encoder "
                "whose positions see the whole text, such as roberta-base"
            )

    def _switch_attention(self) -> bool:
        """Ask for packed attention; False where the family says that it cannot."""
        self._own_attention = self.body.config._attn_implementation
        if not self._keywords or "position_ids" not in self._inputs:
            return False
        attention.register()
        with quiet():
            self.body.set_attn_implementation(attention.NAME)
        return bool(self.body.config._attn_implementation == attention.NAME)


def _limit(wanted: int, config: Any, first: int) -> int:
    """The longest row: what was asked for, or what the encoder has positions for."""
    if wanted < 4:
        raise ModelError(f"max_length is {wanted}; a row needs at least 4 positions")
    return min(wanted, int(getattr(config, "max_position_embeddings", wanted + first)) - first)
