"""Stage 4 for texts: a module for each family of outputs."""
