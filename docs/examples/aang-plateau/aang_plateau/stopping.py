"""The callback itself. Every training of a run has one of its own, in the process that trains."""

import torch

from aang_core import Callback


class Plateau(Callback):
    """Ends a training when the mean of the last losses is hardly below the mean of those before them.

    :param options: ``window``, how many losses each of the two means is over; ``least``, the share by which the newer
        one has to be lower.
    """

    def __init__(self, options) -> None:
        self.window, self.least = options["window"], options["least"]
        self.losses = torch.zeros(0, dtype=torch.float64)  # the newest 2 x window, the latest last
        self.scores: list[float] = []

    @property
    def should_training_stop(self) -> bool:
        """Asked after every step; what is best so far is kept."""
        if len(self.losses) < 2 * self.window:
            return False
        before, now = self.losses.view(2, self.window).mean(1).tolist()
        return now > (1 - self.least) * before

    def on_step_end(self, session, record, progress) -> None:
        if "end-task" in record.losses:
            loss = torch.tensor([record.losses["end-task"]], dtype=torch.float64)
            self.losses = torch.cat([self.losses, loss])[-2 * self.window :]

    def on_evaluate(self, session, progress) -> None:
        self.scores.append(progress.evaluations[-1][session.task.metric])

    def on_train_end(self, session, progress) -> None:
        """The model is trained, its best parameters are loaded: here is the place to look at it."""
        weights = sum(parameter.numel() for parameter in session.parameters.values())
        print(f"plateau: {progress.done} steps, dev {self.scores}, {weights} parameters")

    def state_dict(self) -> dict:
        """In every checkpoint: tensors, and what JSON can hold."""
        return {"losses": self.losses, "scores": self.scores}

    def load_state_dict(self, state) -> None:
        self.losses, self.scores = state["losses"], state["scores"]
