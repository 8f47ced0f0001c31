"""Choosing auxiliary data: from pools of other tasks' examples to a ranked selection, and runs that train on it."""
