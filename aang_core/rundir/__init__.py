"""A run on disk: its directory, its report, and reading finished runs."""
