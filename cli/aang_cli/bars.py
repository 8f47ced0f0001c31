"""What the live bars of ``aang run``, ``aang select`` and ``aang sweep`` have in common."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aang_cli.render import visible


class Bars:
    """A context manager: bars on stderr, drawn inside the block; none where that is no terminal.

    Texts are shown as they are: names may hold what a console would take for markup or commands.

    :param name: what stands before a bar, in the terms of rich's ``TextColumn``; a task's field ``state`` stands behind
        it.
    """

    def __init__(self, name: str) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._bars = Progress(
            TextColumn(name, markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )

    def __enter__(self) -> None:
        self._bars.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def on_remark(self, remark: str) -> None:
        """A line above the bars."""
        if self._live:
            self._console.print(visible(remark), markup=False, highlight=False)
        else:
            print(visible(remark), file=sys.stderr, flush=True)
