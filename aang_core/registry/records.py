"""Step 3 of 9. The light records that plugins return. Each says what exists, what it needs, and where its code is.

A record never holds code, only the address of a factory (``"module:callable"``), so that listing
primitives imports neither torch nor any library of the domain. What the factories make is described
by the protocols in `aang_core.batch.protocols`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import attrs

from aang_core.errors import PluginError

STAGES = ("data", "transform", "representation", "output")
"""The four stages of an objective, in the order in which data flows through them (paper, Figure 2)."""

_NAME = re.compile(r"[a-z0-9]+(?:[-+:.][a-z0-9]+)*")
_ADDRESS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _check_name(instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        kind = type(instance).__name__
        raise PluginError(f"a {kind} is named {value!r}; names are kebab-case, such as 'span-mask'")


def _check_address(instance: Any, attribute: attrs.Attribute[str], value: str) -> None:
    none = value == "" and attribute.default == ""
    if not none and not (isinstance(value, str) and _ADDRESS.fullmatch(value)):
        raise PluginError(
            f"{instance.name!r} gives {value!r} as its {attribute.name}; expected 'module:callable'"
        )


OK, NOTE, MEND = "ok", "note", "mend"


@attrs.frozen
class HealthFinding:
    """One line of ``aang doctor``.

    :param check: what was looked at.
    :param state: `OK`, `NOTE` (worth knowing, nothing is broken) or `MEND`.
    :param do: what to do; empty where there is nothing to.
    """

    check: str
    state: str
    found: str
    do: str = ""


def _names(names: Iterable[str]) -> tuple[str, ...]:
    """Names in their order. One bare text would silently become its letters, so it is refused."""
    if isinstance(names, str):
        raise PluginError(f"expected a list of names (got the text {names!r})")
    return tuple(names)


def _name_set(names: Iterable[str]) -> frozenset[str]:
    return frozenset(_names(names))


def load_factory(address: str) -> Callable[..., Any]:
    """Import the callable at ``"module:callable"``.

    :raises PluginError: where the module or the callable does not exist.
    """
    module, _, name = address.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as cause:
        raise PluginError(f"cannot load {address!r}: {cause}") from cause


@attrs.frozen(kw_only=True)
class Record:
    """What every registered thing has: a unique kebab-case name, one line about it, its code's address.

    :param options: the settings that the factory understands, with their defaults; a run changes them under
        ``[primitives.NAME]``, ``[backbones.NAME]``, ``[loggers.NAME]``, ``[weightings.NAME]`` or
        ``[callback_options.NAME]`` of its configuration.
    :param check_options: the address of a function of all options, with the run's over the defaults. It returns a
        text for each fault that their types do not show; a run reports these with all others. Empty for no check.
    :param source: the publication or software that the thing comes from.
    """

    name: str = attrs.field(validator=_check_name)
    summary: str
    factory: str = attrs.field(validator=_check_address)
    source: str = ""
    options: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    check_options: str = attrs.field(default="", validator=_check_address)


@attrs.frozen(kw_only=True)
class Primitive(Record):
    """One choice at one stage. Legality is what records declare, never a list of pairs.

    :param provides: capabilities beside ``stage:name``, such as ``representation:order``.
    :param requires: capabilities that the other stages, or the backbone, must provide.
    :param conflicts: capabilities that must be absent.
    :param trial_options: options over the defaults, with which the contract kit tries the primitive on its tiny data;
        for those that would keep no row of it.
    """

    provides: frozenset[str] = attrs.field(default=frozenset(), converter=_name_set)
    requires: frozenset[str] = attrs.field(default=frozenset(), converter=_name_set)
    conflicts: frozenset[str] = attrs.field(default=frozenset(), converter=_name_set)
    trial_options: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    stage: ClassVar[str]

    @property
    def capabilities(self) -> frozenset[str]:
        """Everything that this choice brings to an objective."""
        return self.provides | {f"{self.stage}:{self.name}"}


@attrs.frozen(kw_only=True)
class DataSource(Primitive):
    """Stage 1: where rows come from.

    :param may_provide: capabilities that depend on the data; `BoundSource.provides` says which there are. Without a
        task they count as provided, and the objective says that it needs them.
    :param per_task: whether the record stands for a source for each further task of a run. Each is named
        ``NAME:TASK`` and bound with the option ``task``, a key of `task.Task.auxiliary`.
    """

    stage: ClassVar[str] = "data"
    may_provide: frozenset[str] = attrs.field(default=frozenset(), converter=_name_set)
    per_task: bool = False


@attrs.frozen(kw_only=True)
class Transform(Primitive):
    """Stage 2: how rows are corrupted. Keeps positions and marks a selection, unless it drops that.

    :param drops: of ``transform:selection`` and ``transform:aligned``, those that do not hold.
    """

    stage: ClassVar[str] = "transform"
    drops: frozenset[str] = attrs.field(default=frozenset(), converter=_name_set)

    @property
    def capabilities(self) -> frozenset[str]:
        kept = {"transform:selection", "transform:aligned"} - self.drops
        return self.provides | kept | {f"{self.stage}:{self.name}"}


@attrs.frozen(kw_only=True)
class Representation(Primitive):
    """Stage 3: which positions each position may attend to."""

    stage: ClassVar[str] = "representation"


@attrs.frozen(kw_only=True)
class Output(Primitive):
    """Stage 4: the loss that reads the hidden states."""

    stage: ClassVar[str] = "output"


@attrs.frozen(kw_only=True)
class Block:
    """One product of stage lists inside a space."""

    data: tuple[str, ...] = attrs.field(converter=_names)
    transform: tuple[str, ...] = attrs.field(converter=_names)
    representation: tuple[str, ...] = attrs.field(converter=_names)
    output: tuple[str, ...] = attrs.field(converter=_names)

    def names(self, stage: str) -> tuple[str, ...]:
        """The names listed at one stage."""
        return getattr(self, stage)  # type: ignore[no-any-return]


def _blocks(blocks: Iterable[Block]) -> tuple[Block, ...]:
    return tuple(blocks)


@attrs.frozen(kw_only=True)
class Space:
    """A named union of blocks.

    :param optional: data sources whose absence makes their objectives illegal instead of being an
        error.
    :param settings: defaults of a run over this space, by key as in a configuration's file; whatever the run itself
        sets goes before them.
    :param for_selection: likewise, of a run that trains on selected examples, whatever its space; one that names none
        is over this space. Empty where the space is not for that.
    :param candidates: for a race (`train.finish.race`): name → what one candidate sets, as `settings`, mostly its
        ``space`` or ``method``. Without `blocks` of its own a race has those of its candidates' spaces.
    :raises PluginError: for a space with neither blocks nor candidates.
    """

    name: str = attrs.field(validator=_check_name)
    summary: str
    blocks: tuple[Block, ...] = attrs.field(default=(), converter=_blocks)
    optional: frozenset[str] = attrs.field(default=frozenset(), converter=_name_set)
    source: str = ""
    settings: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    for_selection: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    candidates: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, hash=False)

    def __attrs_post_init__(self) -> None:
        if not self.blocks and not self.candidates:
            raise PluginError(f"space {self.name!r} has neither blocks nor candidates")


@attrs.frozen(kw_only=True)
class NamedObjective:
    """A name that the literature has for one objective, shown beside its id."""

    name: str
    objective: str
    source: str = ""


@attrs.frozen(kw_only=True)
class BackboneKind(Record):
    """A family of encoders. ``factory(model, settings)`` returns a `protocols.Backbone`.

    :param prefixes: a model name that starts with one of these (``bundled:``) is this kind's.
    :param fallback: whether the kind takes names that no prefix claims (hub ids and folders).
    :param reads: the input columns that rows are made of, the required one first.
    :param training_only: those of `reads` that the end-task's answer does not depend on; a file to predict from need
        not have them.
    :param default_model: the encoder of this kind that is taken where a run names none.
    :param capabilities: what the kind's encoders can usually do; a loaded encoder says for itself.
    :param predictor: ``predictor(directory, settings)`` loads an exported model as a `export.Predictor`; empty
        where the kind exports none that can be asked.
    :param onnx: ``onnx(directory, out, examples, settings)`` writes an exported model as ONNX into a new folder,
        proves it on the examples, and returns the largest relative gap of two logits; empty where the kind cannot.
    :param readers: further kinds of files with examples: suffix → ``reader(path)``, which returns the input columns.
    :param check: ``check()`` yields a `HealthFinding` for each thing that an installation needs for this kind, for
        ``aang doctor``; empty where there is nothing to say.
    """

    prefixes: tuple[str, ...] = ()
    fallback: bool = False
    default_model: str = ""
    reads: tuple[str, ...] = ("text",)
    training_only: tuple[str, ...] = ()
    predictor: str = ""
    onnx: str = ""
    check: str = ""
    readers: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    capabilities: frozenset[str] = attrs.field(default=frozenset(), converter=_name_set)


@attrs.frozen(kw_only=True)
class TaskKind(Record):
    """A registered task. ``factory()`` returns a `task.Task`; `model` is the encoder it suits."""

    model: str = ""


RANDOM, MATCHED = "random", "random-matched"
"""The controls that are selectors."""


@attrs.frozen(kw_only=True)
class Selector(Record):
    """A way to choose auxiliary examples for a target task.

    :param control: which control of a comparison it is: ``random``, a draw from all pools together; ``random-matched``,
        a draw with the counts of each task that the selection in the directory of its option `like` has; empty for
        one that chooses.
    """

    control: str = attrs.field(default="", validator=attrs.validators.in_(("", RANDOM, MATCHED)))


@attrs.frozen(kw_only=True)
class Logger(Record):
    """Somewhere else to send the history of a run. ``factory(opening)`` takes a `loggers.Opening` and returns a
    `loggers.RunLogger`.

    :param needs: modules that must be importable; where one is not, a run that asks for the logger is refused.
    :param install: what to say about getting them, such as ``pip install 'aang[tensorboard]'``.
    """

    needs: tuple[str, ...] = ()
    install: str = ""


@attrs.frozen(kw_only=True)
class Weighting(Record):
    """A rule by which weights learn. ``factory(binding)`` takes a `rules.RuleBinding` and returns a `rules.Rule`.

    :param forks: whether every stretch of steps is trained twice, without and with the auxiliary objectives, and merged
        at one of the shares of its option ``shares``, a list that rises from 0 to 1, by at most as many dev rows as
        its option ``rows`` says (0, or none: all). Such a rule sees no alignments.
    """

    forks: bool = False


@attrs.frozen(kw_only=True)
class CallbackKind(Record):
    """What follows a run's trainings and may end them. ``factory(options)`` returns a new `callbacks.Callback` for
    one training.
    """
