"""Many trials: the seeds of a run, sweeps (`sweeps/`), runs and experiments on selections (`selected/`), folds.

`trials/` has a trial and its process, and distributes trials; `searched` takes a search that another run has finished;
`results` summarises trials.
"""
