"""``--log wandb``: a run of Weights & Biases. Account, project and mode come from its own environment variables."""

from __future__ import annotations

from collections.abc import Mapping

from aang_core.train.loggers import Opening


class WandbRun:
    """A `aang_core.train.loggers.RunLogger` that hands on to ``wandb``."""

    def __init__(self, opening: Opening) -> None:
        import wandb

        self.run = wandb.init(
            dir=str(opening.directory), name=opening.name, config=dict(opening.config)
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """All numbers of a step at once."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run there."""
        self.run.finish()
