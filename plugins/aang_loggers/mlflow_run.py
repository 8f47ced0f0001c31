"""``--log mlflow``: a run of MLflow. Its tracking URI and experiment come from its environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

from aang_core.train.loggers import Opening


class MlflowRun:
    """A `aang_core.train.loggers.RunLogger` that hands on to ``mlflow``."""

    def __init__(self, opening: Opening) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "aang")
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.id = self.client.create_run(number, run_name=opening.name).info.run_id
        self.client.log_dict(self.id, dict(opening.config), "config.json")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Each number as a metric."""
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def close(self) -> None:
        """End the run there."""
        self.client.set_terminated(self.id)
