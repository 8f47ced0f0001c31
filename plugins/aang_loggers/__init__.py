"""Loggers, under the same names as in transformers. Begin in `hooks`, which lists them."""
