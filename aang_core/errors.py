"""The errors that a user can mend. The command line prints them as one message and exits with 1."""


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
