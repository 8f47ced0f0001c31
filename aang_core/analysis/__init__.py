"""After a run: statistics, comparisons, the report page, theory, submissions."""
