"""Choosing auxiliary data: scoring, pools, protocols, the picture."""
