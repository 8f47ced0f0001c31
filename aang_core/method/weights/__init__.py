"""Step 9: the weights of objectives and the rules by which they learn."""
