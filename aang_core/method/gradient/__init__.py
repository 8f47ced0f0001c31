"""Step 8: the dev gradient, and how each objective's gradient lies to it. `engine` chooses among the ways."""
