"""The checks behind `aang_core.testing`: what every primitive, ours or a stranger's, must keep."""
