"""Selectors: ways to choose auxiliary examples for a target task. Begin in `hooks`, which lists them."""
