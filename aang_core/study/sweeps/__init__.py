"""Sweeps: an experiment's file (`sweep_file`), and every run that it asks for (`sweep`)."""
