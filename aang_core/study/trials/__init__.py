"""Trials: whole runs, or seeds of one, each in a process of its own, on this machine or on a Ray cluster."""
