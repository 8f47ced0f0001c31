"""Ctrl-C and SIGTERM while a run trains: the first lets the step under way end, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from aang_core.train.callbacks import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Handles the signals inside its block.

    While `held`, a first signal is only remembered, in `number`, and whoever trains looks there after every step: an
    exception that a signal raises inside a destructor or a callback would be dropped by Python, and a step that is cut
    in two has no checkpoint. Otherwise, and at a second signal, `KeyboardInterrupt` is raised at once.

    :ivar number: of the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self.held = False
        self._former: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.number or signal.SIGINT)

    @contextmanager
    def ending(self, goodbye: Callable[[BaseException], str]) -> Iterator[None]:
        """Where a signal ends the block, the program exits with `exit_code`.

        :param goodbye: what is said last, given what the signal raised.
        """
        try:
            with self:
                yield
        except (KeyboardInterrupt, Stopped) as cause:
            click.echo(goodbye(cause), err=True)
            raise click.exceptions.Exit(self.exit_code) from None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # others may set no handler
            self._former = {each: signal.signal(each, self._arrived) for each in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, former in self._former.items():
            signal.signal(each, former)

    def _arrived(self, number: int, _: FrameType | None) -> None:
        again = self.number != 0
        self.number = number
        if again or not self.held:
            raise KeyboardInterrupt
