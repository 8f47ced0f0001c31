"""Steps 7 to 9: heads, the meta-gradient, the dev gradient and the weighting."""
