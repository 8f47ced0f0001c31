"""``--log tensorboard``: event files in the seed's ``tensorboard`` folder."""

from __future__ import annotations

from collections.abc import Mapping

from aang_core.train.loggers import Opening


class TensorBoard:
    """A `aang_core.train.loggers.RunLogger` that writes event files."""

    def __init__(self, opening: Opening) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = opening.directory / "tensorboard"
        # A resumed run repeats the steps since its checkpoint; what an earlier file says of them is outdated.
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=opening.step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Each number as a scalar."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()
