"""Loggers: TensorBoard, Weights & Biases and MLflow.

Records only; the code lies beside this file.
"""

from __future__ import annotations

from collections.abc import Iterable

from aang_core.registry.hookspecs import hookimpl
from aang_core.registry.records import Logger


@hookimpl
def aang_loggers() -> Iterable[Logger]:
    return [
        Logger(
            name="tensorboard",
            summary="Event files for TensorBoard in the run directory",
            factory="aang_loggers.tensorboard:TensorBoard",
            needs=("tensorboard",),
            install="pip install 'aang[tensorboard]'",
            source="Abadi et al., TensorFlow, OSDI 2016",
        ),
        Logger(
            name="wandb",
            summary="A run of Weights & Biases, as the environment sets it up",
            factory="aang_loggers.wandb_run:WandbRun",
            needs=("wandb",),
            install="pip install wandb",
        ),
        Logger(
            name="mlflow",
            summary="A run of MLflow, where the environment's tracking URI leads",
            factory="aang_loggers.mlflow_run:MlflowRun",
            needs=("mlflow",),
            install="pip install mlflow",
        ),
    ]
