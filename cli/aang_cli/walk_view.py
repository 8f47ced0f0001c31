"""Print a `Walk`: four stages in colour, or as plain text without a terminal.

Signs mark changes, not only colour: ``old→new`` a changed token, ``−old−`` a deleted one,
``‹kept›`` one that was selected and left as it is, ``~token~`` one under noise,
``░token░`` one whose embedding is zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from aang_core.registry.records import STAGES

if TYPE_CHECKING:
    from aang_core.check.walk import Walk, WalkedRow, WalkedTarget
    from aang_core.registry.registry import Registry

LARGEST_PICTURE = 24
"""Positions of a row that the picture of the attention rule shows."""

MOST_TARGETS = 12
PLAIN_WIDTH = 100
"""Columns where the text goes into a file or pipe."""

_LABEL = 12


def show(walk: Walk, registry: Registry) -> None:
    """Print a walk on stdout."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False)
    for line in lines(walk, registry, console):
        console.print(line)


def lines(walk: Walk, registry: Registry, console: Console) -> Iterator[Text]:
    """The paragraphs, wrapped to the console and without spaces at the ends."""
    for block, indent in blocks(walk, registry):
        for line in block.wrap(console, console.width - indent) or [Text()]:
            line.rstrip()
            yield Text.assemble(" " * indent if line.plain else "", line)


def blocks(walk: Walk, registry: Registry) -> Iterator[tuple[Text, int]]:
    """The paragraphs of a walk, each with its indentation."""
    names = ", ".join(registry.named.get(walk.objective, ()))
    yield Text.assemble((walk.objective, "bold"), f"  ({names})" if names else ""), 0
    for finding in walk.findings:
        yield Text.assemble(("warning: ", "bold red"), finding.text), 0
    stages = dict(zip(STAGES, walk.objective.split("/"), strict=True))
    for number, (stage, name) in enumerate(stages.items(), 1):
        yield Text(), 0
        yield _heading(number, stage, name, registry), 0
        for index, row in enumerate(walk.rows):
            several = len(walk.rows) > 1
            for line in STAGE_LINES[stage](row):
                yield Text.assemble((f"row {index}  ", "dim") if several else "", line), 2


def _heading(number: int, stage: str, name: str, registry: Registry) -> Text:
    entry = registry.primitives.get(name)
    summary = f": {entry.record.summary}" if entry else ""
    return Text.assemble((f"{number} {stage} ", "bold cyan"), (name, "bold"), summary)


def _data(row: WalkedRow) -> Iterator[Text]:
    """What was drawn, and where it stands."""
    if row.drawn:
        yield from map(Text, row.drawn)
    else:
        yield _joined(Text(token, "dim" if token.startswith("[") else "") for token in row.before)
    answer = f", which says: {row.answer}" if row.answer else ""
    yield Text(f"from document {row.origin.document}, text {row.origin.index}{answer}", "dim")


def _transform(row: WalkedRow) -> Iterator[Text]:
    """What the encoder is shown, with what became of the rest."""
    if row.drawn and row.drawn_shown:
        pairs = zip(row.drawn, row.drawn_shown, strict=True)
        yield from (Text.assemble(old, ("  →  ", "dim"), (new, "bold")) for old, new in pairs)
    else:
        yield _joined(_tokens(row))
    counts = [
        (sum(row.selected), "selected"),
        (sum(row.changed), "changed"),
        (sum(row.noisy), "under noise"),
        (sum(row.dropped), "set to zero"),
        (len(row.removed), "removed"),
    ]
    said = ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing selected"
    yield Text(f"{said} of {len(row.before)} positions", "dim")


def _tokens(row: WalkedRow) -> Iterator[Text]:
    gone = iter(row.removed)
    waiting = next(gone, None)
    for position, token in enumerate(row.shown):
        place = row.came_from[position]
        while waiting is not None and waiting < place:
            yield Text(f"−{row.before[waiting]}−", "red strike")
            waiting = next(gone, None)
        yield _token(row, position, token)
    if waiting is not None:
        yield from (Text(f"−{row.before[place]}−", "red strike") for place in (waiting, *gone))


def _token(row: WalkedRow, position: int, token: str) -> Text:
    place = row.came_from[position]
    if row.changed[position]:
        old = row.before[place] if place >= 0 else ""
        return Text.assemble((old, "red strike"), "→", (token, "bold green"))
    if row.dropped[position]:
        return Text(f"░{token}░", "dim magenta")
    if row.noisy[position]:
        return Text(f"~{token}~", "magenta")
    if row.selected[position]:
        return Text(f"‹{token}›", "bold yellow")
    return Text(token, "dim" if row.special[position] else "")


def _representation(row: WalkedRow) -> Iterator[Text]:
    """A picture: row i is what position i attends to; ► marks a state that the loss reads."""
    size = min(len(row.shown), LARGEST_PICTURE)
    read = set(row.read)
    for position in range(size):
        token = row.shown[position][:_LABEL].rjust(_LABEL)
        cells = row.allowed[position, :size].tolist()
        yield Text.assemble(
            (token, "bold" if position in read else "dim"),
            (" ► " if position in read else "   ", "yellow"),
            ("".join("██" if each else "· " for each in cells).rstrip(), "blue"),
        )
    if size < len(row.shown):
        yield Text(f"the first {size} of {len(row.shown)} positions", "dim")


def _output(row: WalkedRow) -> Iterator[Text]:
    """What is to be predicted, from which states."""
    for target in row.targets[:MOST_TARGETS]:
        yield _target(row, target)
    more = len(row.targets) - MOST_TARGETS
    if more > 0:
        yield Text(f"and {more} more targets", "dim")
    if not row.targets:
        yield Text("no target", "dim")
    yield Text(_reading(row), "dim")


def _target(row: WalkedRow, target: WalkedTarget) -> Text:
    where = ""
    if target.reads:
        shown = " and ".join(f"{row.shown[i]} ({i})" for i in target.reads)
        where = f"at {shown}"
        if target.about is not None and target.about not in target.reads:
            where += f" for position {target.about}"
    elif len(target.rows) > 1:
        others = " and ".join(f"row {other}" for other in target.rows[1:])
        where = f"among the candidates of row {target.rows[0]}, {others}:"
    note = ("  visible", "bold red") if target.visible else ""
    return Text.assemble(where, " " if where else "", "→ ", (target.value, "bold green"), note)


def _reading(row: WalkedRow) -> str:
    count, total = len(row.read), len(row.shown)
    if count == total:
        return f"the loss reads the states of all {total} positions"
    listed = ", ".join(map(str, row.read[:MOST_TARGETS])) + (", …" if count > MOST_TARGETS else "")
    return (
        f"the loss reads the states of {count} of {total} positions: {listed}"
        if count
        else ("the loss reads no state of this row")
    )


def _joined(parts: Iterable[Text]) -> Text:
    return Text(" ").join(list[Text](parts))


STAGE_LINES: Mapping[str, Callable[[WalkedRow], Iterator[Text]]] = {
    "data": _data,
    "transform": _transform,
    "representation": _representation,
    "output": _output,
}
"""Stage → the paragraphs about one row there."""
