"""Step 8: the dev gradient, and how well each objective's gradient agrees with it. `engine` chooses among the ways."""
