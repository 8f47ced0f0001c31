"""The errors that a user can mend. The command line prints them as one message and exits with 1."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AangError(Exception):
    """Base of every error that the user can mend; its text says expected, found, where and what to do."""


class ConfigError(AangError):
    """A run configuration, flag or space file holds something that it cannot."""


class PluginError(AangError):
    """A plugin clashes with another one, fails to import, or returns what its hook does not allow."""


class TaskError(AangError):
    """A task, split or corpus is missing, malformed, or contradicts itself."""


class ModelError(AangError):
    """An encoder cannot be loaded, or cannot do what an objective asks of it."""


class RunError(AangError):
    """A run directory is occupied, unfinished, damaged, or of another version."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: ``; did you mean 'td+ed'?``, or what is known."""
    names = sorted(known)
    if not names:
        return "; there are none"
    return nearest(name, names) or "; known: " + ", ".join(names)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'td+ed'?`` for the nearest known name, or nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_message(faults: Iterable[str], summary: str) -> str:
    """One fault as it is; several under a summary that counts them, a line each."""
    lines = list(faults)
    if len(lines) == 1:
        return lines[0]
    return f"{summary}: {len(lines)} faults\n" + "\n".join(f"  - {line}" for line in lines)


def faults_in(message: str) -> list[str]:
    """Each fault of a message that `one_message` made."""
    _, *lines = message.split("\n")
    if lines and all(line.startswith("  - ") for line in lines):
        return [line.removeprefix("  - ") for line in lines]
    return [message]
