"""The report page of a run: its data, the figures, and the page itself."""
