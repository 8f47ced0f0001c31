"""Stage 4 for texts: one module for each family of outputs."""
