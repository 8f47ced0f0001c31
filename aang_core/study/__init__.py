"""Many trials: the seeds of a run, sweeps, runs on selections, experiments.

`trial` has a trial and its process, `pool` and `ray_pool` distribute trials, `results` summarises them.
"""
