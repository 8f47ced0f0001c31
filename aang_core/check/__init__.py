"""Checks of primitives and objectives: warnings before training, and the contract kit."""
