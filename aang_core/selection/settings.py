"""Settings of a selection. In: TOML, flags or keywords. Out: a frozen `SelectionConfig`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from aang_core.config.fields import RecordOf, setting
from aang_core.config.file import read_config
from aang_core.config.schema import Anything, Choice, Flag, Integer, ListOf, TableOf, Text, checked
from aang_core.config.settings import UNLABELLED
from aang_core.errors import ConfigError, one_message
from aang_core.registry.options import option_faults, settings_of
from aang_core.registry.records import MATCHED, RANDOM, Selector

CONTROLS = ("none", RANDOM, MATCHED, "full")
"""What a selection is compared with: plain fine-tuning; a random draw; a random draw with the selection's counts of
each task; every example there is.
"""


@attrs.frozen(kw_only=True)
class SelectionConfig:
    """Everything that a selection depends on. Written whole to ``selection.toml``.

    :param target: the task for which examples are chosen.
    :param from_: where they are chosen from (``from`` in TOML): labelled tasks, of which only ``train`` is read, and
        text files, of which each line is an example without a label.
    :param selector: how they are chosen; see ``aang list-selectors``.
    :param model: the encoder; empty for the target's usual one.
    :param seed: the seed of every draw.
    :param train_rows: labelled training rows of the target, drawn as a run with this seed draws them; 0 for all.
    :param dev_rows: labelled dev rows of the target, for selectors that read dev, drawn in the same way; 0 for all.
        Leaks are looked for in all of dev.
    :param examples_per_task: rows of each task that a selector may train on, which are not scored; of a pool at most
        half. The same rows for every selector, so that all of them choose among the same ones.
    :param exclude_leaks: leave out pool rows that share a text with the target's dev or test, instead of refusing.
    :param drop_empty: leave out rows of the target and of the pools with an empty text or label, instead of refusing.
    :param columns: for each role (``text``, ``text_pair``, ``label``) the target's column that plays it, if its name is
        another one; pools name theirs in their ``task.toml``.
    :param unlabelled: training rows of the target with an empty label: faults (``none``), or texts without a label
        (``empty``).
    :param top: how many of the best the summary counts; 0 for 1,000, or all where there are fewer.
    :param max_length: longest row, in positions; longer ones are cut.
    :param shard_rows: rows that are scored together, in length order; an interruption loses no more than these.
    :param batch_tokens: most positions in one forward pass.
    :param picture_rows: rows of each task in the picture of pooled vectors; 0 for none.
    :param precision: ``fp32`` or ``bf16``.
    :param device: ``cpu``, ``cuda`` or ``auto``.
    :param plugins: allow-list; empty for all that are installed.
    :param options: of the selector.
    """

    target: str = setting(Text(), "sample")
    from_: tuple[str, ...] = setting(ListOf(Text(), 1, "task or text file"))
    selector: str = setting(Text(), "discriminator-bce")
    model: str = setting(Text(empty=True), "")
    seed: int = setting(Integer(0), 0)
    train_rows: int = setting(Integer(0), 0)
    dev_rows: int = setting(Integer(0), 0)
    examples_per_task: int = setting(Integer(0), 500)
    exclude_leaks: bool = setting(Flag(), False)
    drop_empty: bool = setting(Flag(), False)
    columns: Mapping[str, str] = setting(TableOf(Text()), {})
    unlabelled: str = setting(Choice(UNLABELLED), "none")
    top: int = setting(Integer(0), 0)
    max_length: int = setting(Integer(4), 128)
    batch_tokens: int = setting(Integer(1), 4096)
    shard_rows: int = setting(Integer(1), 1024)
    picture_rows: int = setting(Integer(0), 150)
    precision: str = setting(Choice(("fp32", "bf16")), "fp32")
    device: str = setting(Text(), "auto")
    plugins: tuple[str, ...] = setting(ListOf(Text()), ())
    options: Mapping[str, Any] = setting(TableOf(Anything()), {})

    @classmethod
    def from_mapping(
        cls, raw: Mapping[str, Any], origins: Mapping[str, str] | None = None
    ) -> SelectionConfig:
        """Settings from plain values; what is left out has its default.

        :param origins: dotted key → the file and line, or the flag, that it comes from, for messages.
        :raises ConfigError: names every unknown key and every value that breaks its rule.
        """
        rule = RecordOf(cls)
        config: SelectionConfig = checked(rule, raw, origins, what="the selection's settings")
        return config


def load_selection_config(path: Path) -> SelectionConfig:
    """The settings in a TOML file.

    :raises ConfigError: where it cannot be read, or holds faults; each is named with its line.
    """
    return SelectionConfig.from_mapping(*read_config(path))


def dump_selection_config(config: SelectionConfig) -> str:
    """All settings as TOML; `load_selection_config` gives equal ones back."""
    import tomli_w

    return tomli_w.dumps(plain_settings(config))


def plain_settings(config: SelectionConfig) -> dict[str, Any]:
    """All settings by their key in TOML."""
    return {key.rstrip("_"): value for key, value in attrs.asdict(config).items()}


def resolved_options(record: Selector, given: Mapping[str, Any]) -> dict[str, Any]:
    """The selector's options with the given ones over them.

    :raises ConfigError: for unknown options, and values of another type than the default or below 0; names them all.
    """
    faults = option_faults(record, given, ("options",), least=0)
    if faults:
        faults = [f"the selector {record.name!r}: {fault}" for fault in faults]
        raise ConfigError(one_message(faults, "the selector's options"))
    return settings_of(record, {record.name: given})
