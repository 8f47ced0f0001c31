"""Step 5: rows, the packed stream, the protocols of the stages and their checks, and row shares."""
