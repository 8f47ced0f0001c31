"""The end: a run on disk: its directory, report, history, and how a finished one is read back."""
