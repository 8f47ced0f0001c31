"""Does selected data help? ``aang select --experiment``. Begin in `job`.

`spec` is the file that asks, `subsets` draws rows and writes them as tasks, `results` compares what finished runs
scored and cost, `tables` writes that down.
"""
