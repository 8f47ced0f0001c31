"""What the live bars of `aang run` and `aang sweep` have in common."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aang_cli.render import visible


class Bars:
    """Bars on stderr, drawn between ``progress.start()`` and ``progress.stop()``; none where that is no terminal.

    :param name: what stands before a bar, in the terms of rich's ``TextColumn``; a task's field ``state`` stands behind
        it.
    """

    def __init__(self, name: str) -> None:
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn(name),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )

    def say(self, text: str) -> None:
        """A line above the bars, as it is: names may hold what a console would take for markup or commands."""
        if self.live:
            self.console.print(visible(text), markup=False, highlight=False)
        else:
            print(visible(text), file=sys.stderr, flush=True)
