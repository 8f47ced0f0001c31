"""Checks on plugins' primitives: name the plugin that failed, what it was doing, and what was expected.

These checks compare shapes and types. They cost next to nothing and run at every call. Checks that need copies or a
second call are in `first_batch` and run once a seed.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from aang_core.batch.rows import Packed, Row, Targets
from aang_core.errors import AangError, PluginError, out_of_memory

TAGS = ("full", "causal", "anticausal", "matrix", "order")
"""The kinds of attention rule; see `protocols.BoundRepresentation`."""


class BrokenContract(Exception):  # noqa: N818  becomes a `PluginError` once the plugin is known
    """What was expected of a primitive, and what was found."""


def expect(holds: bool, message: str) -> None:
    """:raises BrokenContract: where it does not hold."""
    if not holds:
        raise BrokenContract(message)


@contextmanager
def errors_of(
    who: str, doing: str, instead: str = "leave the primitive out of the space"
) -> Iterator[None]:
    """Name `who` for whatever goes wrong inside.

    Exhausted memory passes as it is, and so do errors that say themselves what the user can mend.

    :param who: a primitive with its plugin, as `BoundObjective.who` says it.
    :param instead: what to do where the plugin cannot be mended.
    :raises PluginError: for any other exception, with its type, text and place, and for broken contracts.
    """
    try:
        yield
    except AangError:
        raise
    except BrokenContract as fault:
        raise PluginError(f"{who} broke its contract in {doing}: {fault}") from fault
    except Exception as cause:
        if out_of_memory(cause):
            raise
        last = traceback.extract_tb(cause.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        raise PluginError(
            f"{who} failed in {doing}: {type(cause).__name__}: {cause} ({place}); mend the plugin, or {instead}"
        ) from cause


def check_rows(rows: Sequence[Row], count: int) -> None:
    """What a source drew: `count` rows with positions, every input as long as its row.

    :raises BrokenContract: where it is not so.
    """
    expect(len(rows) == count, f"asked for {count} rows, found {len(rows)}")
    for row in rows:
        expect(isinstance(row, Row), f"expected rows.Row, found {type(row).__name__}")
        expect(len(row) > 0, f"expected rows with positions, found none in {row.origin}")
        names = rows[0].inputs.keys()
        expect(row.inputs.keys() == names, f"expected the inputs {list(names)} in every row")
        for name, value in {**row.inputs, **row.marks}.items():
            found = f"found {list(value.shape)} in {row.origin}"
            expect(value.shape[:1] == (len(row),), f"expected {len(row)} of {name!r}, {found}")


def check_packed(packed: Packed, rows: int) -> None:
    """What a transform made: `rows` rows that fill the stream, and N of everything that counts positions.

    :raises BrokenContract: where it is not so.
    """
    expect(isinstance(packed, Packed), f"expected rows.Packed, found {type(packed).__name__}")
    count, offsets = len(packed.special), packed.offsets
    sound = len(offsets) == rows + 1 and int(offsets[0]) == 0 and int(offsets[-1]) == count
    expect(
        sound and bool((packed.lengths > 0).all()),
        f"expected offsets of {rows} rows, none empty, from 0 to {count}, found {offsets.tolist()[:9]}",
    )
    optional = {"proposals": packed.proposals, "noise": packed.noise, "dropped": packed.dropped}
    fields: Mapping[str, Tensor] = {
        **{f"inputs[{name}]": value for name, value in packed.inputs.items()},
        **{f"original[{name}]": value for name, value in packed.original.items()},
        **{f"marks[{name}]": value for name, value in packed.marks.items()},
        "selected": packed.selected,
        **{name: value for name, value in optional.items() if value is not None},
    }
    for name, value in fields.items():
        found = f"found {list(value.shape)}"
        expect(value.shape[:1] == (count,), f"expected {count} positions in {name}, {found}")
    if packed.noise is not None:
        expect(packed.noise.ndim == 2, f"expected noise [N, E], found {list(packed.noise.shape)}")
    if packed.dropped is not None:
        found = f"found {packed.dropped.dtype} {list(packed.dropped.shape)}"
        expect(
            packed.dropped.ndim == 1 and packed.dropped.dtype == torch.bool,
            f"expected dropped [N] of booleans, {found}",
        )


def check_rule(tag: str, rule: Tensor | None, length: int) -> None:
    """A representation's answer for one row: [T, T] bool for ``matrix``, [T] ranks for ``order``.

    :raises BrokenContract: where it is not so.
    """
    expect(tag in TAGS, f"expected a tag of {', '.join(TAGS)}, found {tag!r}")
    if rule is None:
        return
    shape = (length, length) if tag == "matrix" else (length,)
    kind = torch.bool if tag == "matrix" else torch.long
    expect(
        rule.shape == shape and rule.dtype == kind,
        f"expected {kind} {list(shape)}, found {rule.dtype} {list(rule.shape)}",
    )


def check_targets(targets: Targets, packed: Packed) -> None:
    """What an output asks for: positions or rows of the stream, and as many values.

    :raises BrokenContract: where it is not so.
    """
    expect(isinstance(targets, Targets), f"expected rows.Targets, found {type(targets).__name__}")
    levels = {"position": len(packed.special), "row": len(packed.lengths)}
    expect(targets.level in levels, f"expected a level of {list(levels)}, found {targets.level!r}")
    count = len(targets)
    weight = {} if targets.weight is None else {"weight": targets.weight}
    for name, value in {"value": targets.value, **weight, **targets.extra}.items():
        found = f"found {list(value.shape)}"
        expect(value.shape[:1] == (count,), f"expected {count} targets in {name!r}, {found}")
    if not targets.index.numel():
        return
    expect(not targets.index.is_floating_point(), "expected whole numbers as index")
    low, high, stop = int(targets.index.min()), int(targets.index.max()), levels[targets.level]
    expect(
        low >= 0 and high < stop,
        f"expected indices of {targets.level}s from 0 to {stop - 1}, found {low} to {high}",
    )


def check_losses(losses: Tensor, targets: Targets) -> None:
    """One value a target.

    :raises BrokenContract: where it is not so.
    """
    expect(isinstance(losses, Tensor), f"expected a tensor, found {type(losses).__name__}")
    expect(
        losses.shape == (len(targets),) and losses.is_floating_point(),
        f"expected {len(targets)} losses, one a target, found {losses.dtype} {list(losses.shape)}",
    )
