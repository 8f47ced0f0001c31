"""Forked trainings: every stretch of steps taken twice, and merged. Begin in `rounds`."""
