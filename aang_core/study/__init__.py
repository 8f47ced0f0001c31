"""Many trials: the seeds of a run, sweeps (`sweeps/`), runs and experiments on selections (`selected/`), folds.

`trial` has a trial and its process, `pool` and `ray_pool` distribute trials, `results` summarises them.
"""
