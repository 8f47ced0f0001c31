"""Loggers under the names that transformers gives them."""
