"""Many trials: the seeds of a run, sweeps, runs on selections, experiments.

A trial and its process are in `trial`; `pool` and `ray_pool` deal trials out, `results` says what they found.
"""
