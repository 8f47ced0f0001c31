"""Selectors: ways to choose auxiliary examples for a target task."""
