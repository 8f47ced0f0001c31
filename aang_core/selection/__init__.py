"""Choosing auxiliary data: from pools of other tasks' examples to a ranked selection, and runs that train on it.

Begin in `job`, which is ``aang select``. In its order: `config`, `pools` (what is read), `checks`, `protocols` (what a
selector is called with), `scoring`, `files` (what is left) and `tsne` (its picture); `directory` holds the place.

Afterwards: `auxiliary` brings the best rows of a selection into a run, `runs` trains on several N beside the controls
of `arms`, and `experiment` does so for several targets, selectors and seeds.
"""
