"""Loggers under the names that transformers gives them. Begin in `hooks`, which lists them."""
