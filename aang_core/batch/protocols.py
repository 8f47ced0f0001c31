"""What the factories of the records make: the four stages at work, and the encoder beneath them.

Every factory of a primitive is called as ``factory(binding)`` with a `Binding` and returns an object of
the protocol of its stage. Nothing here keeps state that a step changes; randomness comes from the
generator that is passed in (CPU), and inputs are never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
from torch import Generator, Tensor, nn

from aang_core.batch.checks import expect
from aang_core.batch.rows import Hidden, Layout, Origin, Packed, Row, Targets
from aang_core.batch.stream import FusedBatch
from aang_core.data.task import Task


def no_op(*_: object) -> None:
    """For bindings without a listener."""


@attrs.frozen(eq=False, kw_only=True)
class Binding:
    """What a primitive is bound to when a run begins.

    :param backbone: the encoder; None only where a data source is asked what it provides, and for no rows.
    :param options: the record's options, with the run's ``[primitives.NAME]`` laid over them.
    :param seed: of the run; for what is fitted or sampled once at the start.
    :param source: the bound data source of the same objective; None for data sources themselves.
    :param cache: a folder for what is expensive to make, or None for the user's own cache.
    :param progress: told of long work: what it is, how much is done, of how much.
    :param remark: told what the user should know before training starts.
    """

    task: Task
    backbone: Backbone | None
    options: Mapping[str, Any]
    seed: int = 0
    source: BoundSource | None = None
    cache: Path | None = None
    progress: Callable[[str, int, int], None] = no_op
    remark: Callable[[str], None] = no_op


@attrs.frozen(eq=False, kw_only=True)
class Look:
    """What the slow copy of the model says of rows, on the CPU in fp32.

    :param logits: [B, C] of the end-task; [N, C] for token tasks.
    :param means: [B, H] the mean of each row's states.
    """

    logits: Tensor
    means: Tensor


@runtime_checkable
class BoundSource(Protocol):
    """Stage 1 at work. `provides`: the capabilities of ``may_provide`` that this data really has.

    A source whose rows are made of examples may have a method ``examples()``: it yields the example (its columns, such
    as ``text``) of every row that it may ever draw in the ``single`` layout, with that row's `Origin`, which no other
    example has. So an output can ask another model about the examples as they were written.

    A source may look at the model as training goes on. It then has

    - ``refresh_every``: so many steps lie between two looks, counted within a phase;
    - ``memory()``: tensors by name, all that it draws by; saved in checkpoints;
    - ``refreshed(look)``: given a function from rows to a `Look`, the new memory (of the same names and shapes) and a
      text for the user, or ``""``; a pure function, asked of one process only;
    - ``remember(memory)``: draw by this from now on. The core calls it while nothing draws. The rows of the step that
      follows have been drawn before, so the first new ones are those of the step after it.
    """

    provides: frozenset[str]

    def __len__(self) -> int:
        """How many texts (images, …) there are."""

    def rows(self) -> Iterator[Row]:
        """Every row once, in order and in the ``single`` layout: what statistics are fitted on."""

    def draw(self, layout: Layout, count: int, generator: Generator) -> list[Row]:
        """`count` rows in this layout, drawn at random; in pairs for the layouts that pair rows."""


@runtime_checkable
class BoundTransform(Protocol):
    """Stage 2 at work.

    A transform that mixes others may have a method ``weighted(logits)``: a new transform that follows the search's
    logits of transforms (name → W_T), asked for at every step.
    """

    def apply(self, packed: Packed, generator: Generator) -> Packed:
        """A new `Packed`: selected, and changed where the transform changes something."""


@runtime_checkable
class BoundRepresentation(Protocol):
    """Stage 3 at work.

    `tag` says which kind of rule it is, so that the usual ones cost nothing: ``full``, ``causal`` and
    ``anticausal`` need no method; ``matrix`` asks `allowed` for every row; ``order`` asks `order`, and position i
    may then attend to j where ``rank[j] <= rank[i]``.
    """

    tag: str

    def allowed(self, length: int, generator: Generator) -> Tensor:
        """[T, T] bool, row i: what position i may attend to. Its diagonal must be True."""

    def order(self, length: int, generator: Generator) -> Tensor:
        """[T] long, a permutation: each position's rank."""


@runtime_checkable
class BoundOutput(Protocol):
    """Stage 4 at work, for one source.

    :ivar layout: what rows must look like.
    :ivar min_rows: fewer rows than this cannot be used in a step.
    :ivar row_multiple: rows come in groups of this size, which nothing may cut.
    :ivar pointwise: whether each loss depends on its own target only, so that objectives which share a head may be
        computed in one call (contrastive losses, which need the other rows of the batch, are not pointwise).

    Where outputs of one name cannot share a head (they have other classes), an attribute `head_name` tells them
    apart. Outputs of several names may share one under it (``end-task`` is the end-task's); each computes its own
    `losses` on it. Those of one name and class, bound to several sources, may differ in `state` alone.

    An output may further have

    - ``trains_end_task_head = True``: its losses are given the end-task's own head, under either head policy, and its
      `head` is never called;
    - ``asks_teacher = True``: before `losses` the core asks the slow copy of the model for its end-task answer to every
      row as it was before the transform, and hands it to ``taught(targets, teaching)``, which returns the targets to
      use and the new memory (see `Teaching`). Without `taught`, each target's answer is ``targets.extra["teacher"]``;
    - ``asks_labelled = True`` beside it: the teacher also answers the step's labelled rows;
    - ``memory()``: tensors by name that `taught` carries from step to step; saved in checkpoints.
    """

    layout: Layout
    min_rows: int
    row_multiple: int
    pointwise: bool

    def targets(self, packed: Packed) -> Targets:
        """What is to be predicted; indices count from the start of `packed`."""

    def head(self) -> nn.Module:
        """A new head. Parameters of the encoder may be shared with it (a tied decoder).

        A head, or a module in it, may have an attribute `pretrained_names`: which of its parameters a checkpoint
        brought, by the names that `named_parameters` gives them. They train at the encoder's learning rate and weight
        decay, all others at the heads'.
        """

    def losses(self, head: nn.Module, hidden: Hidden, targets: Targets) -> Tensor:
        """[M], one value per target; the core alone sums and divides."""

    def state(self) -> Mapping[str, Tensor]:
        """What was fitted on the source (class counts, idf), to be saved with the run; often empty."""


@attrs.frozen(eq=False, kw_only=True)
class Teaching:
    """What the slow copy of the model says in one step about the rows of one objective; no gradient flows into it.

    :param answers: [B, C] end-task logits of the objective's rows before their transform; [N, C] for token tasks.
    :param labelled: [L, C] its logits of the step's labelled rows, where the output has ``asks_labelled``.
    :param labels: their labels, as `method.end_task.label_tensor` lays them out.
    :param memory: what the output's `taught` returned in the step before; its `memory()` in the first one.
    :param elapsed: the share of the run's steps that are done, from 0 to 1.
    """

    answers: Tensor
    memory: Mapping[str, Tensor]
    elapsed: float
    labelled: Tensor | None = None
    labels: Tensor | None = None


def asks_teacher(output: BoundOutput) -> bool:
    """Whether an output asks the teacher."""
    return bool(getattr(output, "asks_teacher", False))


def first_memory(output: Any) -> Mapping[str, Tensor]:
    """What an output's `taught` remembers before its first step; empty for one that remembers nothing."""
    memory: Mapping[str, Tensor] = output.memory() if hasattr(output, "memory") else {}
    return memory


def taught(
    output: BoundOutput, targets: Targets, teaching: Teaching
) -> tuple[Targets, Mapping[str, Tensor]]:
    """An output's targets after the teacher's answers, and what the output remembers of them.

    :raises BrokenContract: where it returns another number of targets, or another memory.
    """
    if not hasattr(output, "taught"):
        answers = teaching.answers[targets.index.to(teaching.answers.device)]
        return attrs.evolve(targets, extra={**targets.extra, "teacher": answers}), {}
    new, memory = output.taught(targets, teaching)
    names = sorted(teaching.memory)
    expect(sorted(memory) == names, f"expected the memory {names}, found {sorted(memory)}")
    expect(len(new) == len(targets), f"expected {len(targets)} targets, found {len(new)}")
    return new, memory


@attrs.frozen(kw_only=True)
class BackboneSettings:
    """What a `records.BackboneKind`'s factory is called with: ``factory(model, settings)``.

    :param max_length: longest row, in positions; the encoder's own limit is kept where it is lower.
    :param device: ``cpu``, ``cuda``, …, or ``auto`` (cuda where there is one).
    :param dtype: of the parameters, ``float32``, ``bfloat16`` or ``float64``.
    :param seed: for parameters that the checkpoint does not hold.
    :param checkpointing: recompute activations in the backward pass instead of keeping them.
    :param frozen_layers: embeddings and this many of the lowest layers do not train; 0 freezes nothing.
    :param lora_rank: low-rank adapters of this rank train in place of the encoder's own weights; 0 for none.
    :param pooling: what the end-task's head reads: ``default``, as the family does, the ``mean`` of the row, or what
        the checkpoint was trained for (``auto``).
    :param options: the record's, with the run's ``[backbones.NAME]`` over them.
    """

    max_length: int = 128
    device: str = "auto"
    dtype: str = "float32"
    seed: int = 0
    checkpointing: bool = False
    frozen_layers: int = 0
    lora_rank: int = 0
    pooling: str = "auto"
    options: Mapping[str, Any] = attrs.field(factory=dict, hash=False)


@runtime_checkable
class Backbone(Protocol):
    """An encoder with everything the engine asks of it. The same object for a whole run.

    Where it cuts long examples, an attribute `truncated` may say how many it has cut so far. Two methods may show
    people what a row's first input [T] or [T, …] holds: `pieces` (T words) and `picture` (lines).

    :ivar name: the model, as the run names it.
    :ivar body: the shared encoder; the meta-gradient lives in its parameters.
    :ivar hidden_size: H.
    :ivar embedding_size: E, the width of the input embeddings (noise is drawn in it).
    :ivar max_length: positions that a row may have, special ones included.
    :ivar capabilities: such as ``backbone:row-attention`` (every row its own rule) and ``backbone:dropout``.
    :ivar packed: whether `encode` runs layers on exactly the N packed positions, as the fused engine needs.
    """

    name: str
    body: nn.Module
    hidden_size: int
    embedding_size: int
    max_length: int
    capabilities: frozenset[str]
    packed: bool

    def rows(self, examples: Sequence[Mapping[str, Any]], origins: Sequence[Origin]) -> list[Row]:
        """Examples (columns of a split, with an optional ``label``) as rows, cut at `max_length`."""

    def encode(self, batch: FusedBatch) -> Hidden:
        """One forward pass over a packed stream, each row under its own rule."""

    def end_task_head(self, task: Task) -> nn.Module:
        """The head that an exported model will have. Called as ``head(hidden, rows)`` → logits [len(rows), C].

        Every call returns the same initial state; the first one is the head that `export` writes. What of it is
        pretrained, an attribute `pretrained_names` says, as in `BoundOutput.head`.
        """

    def export(self, directory: Path, head: nn.Module, task: Task) -> None:
        """Write a model that loads without aang, and make sure that the files give every weight back.

        The logits of a few rows are compared afterwards (`export.export_model`), which would miss a rare token's.
        """

    def exported_logits(self, directory: Path, examples: Sequence[Mapping[str, Any]]) -> Tensor:
        """[len(examples), C] from the files alone: what proves an export."""
