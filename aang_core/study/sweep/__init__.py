"""Many runs beside each other, and the configuration that dev chose: ``aang sweep``. Begin in `job`.

In their order: `experiments` reads a file (`draws` its random points), `plan` makes trials of it, `pool` or `ray_pool`
starts a process for each (`trial`), and `results` says what they found.
"""
