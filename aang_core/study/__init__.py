"""Many trials: seeds, sweeps, selections and comparisons."""
