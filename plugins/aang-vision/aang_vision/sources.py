"""Where images come from: files, the data source ``images`` of stage 1, and the task ``digits``.

A file is a ``.npy`` array, a table with a column ``image``, or one image a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aang_core.batch.parts import Examples, ExampleSource
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin
from aang_core.data.readers import SUFFIXES, Faults, file_and_column, read_lines, read_table
from aang_core.data.splits import split_rows
from aang_core.data.task import Task
from aang_core.errors import TaskError
from aang_vision.images import IMAGE

NAME = "images"
DEV_ROWS, TEST_ROWS = 200, 597
"""Of ``digits``. What is left is for training; ``--train-rows`` keeps the labels of a few."""


def read_array(path: Path) -> dict[str, list[Any]]:
    """The images of a ``.npy`` file [images, …], as a column; nothing in it is executed.

    :raises TaskError: where it is no array of numbers, or one without a dimension of images.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise TaskError(f"cannot read {path} as an array of numbers: {cause}") from cause
    if not isinstance(array, np.ndarray) or array.ndim < 2 or array.dtype.kind not in "buif":
        shape = getattr(array, "shape", "an archive")
        raise TaskError(
            f"{path}: expected an array of numbers, its first dimension the images, found {shape} of "
            f"{getattr(array, 'dtype', 'several arrays')}"
        )
    return {IMAGE: array.reshape(len(array), -1).astype(float).tolist()}


def read_images(path: Path) -> list[dict[str, Any]]:
    """The images of a file, an example each; of a table its column ``image``, or another one as ``FILE:COLUMN``.

    :raises TaskError: where it is missing or malformed, or lacks the column.
    """
    path, column = file_and_column(path)
    column = column or IMAGE
    faults = Faults()
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = read_array(path)[IMAGE]
    elif suffix in SUFFIXES:
        table = read_table(path, (), faults)
        faults.raise_any(str(path))
        if column not in table.columns:
            found = ", ".join(map(repr, table.columns)) or "none"
            raise TaskError(f"{path} has no column {column!r}; found the columns {found}")
        values = table.columns[column]
    else:
        values = [line for _, line in read_lines(path, faults) if line.strip()]
        faults.raise_any(str(path))
    return [{IMAGE: value} for value in values]


class Images(ExampleSource):
    """The images of the file that the run gives as ``--external images=FILE``.

    :raises TaskError: where there is none, or it is empty.
    """

    def __init__(self, binding: Binding) -> None:
        where = binding.task.external.get(NAME)
        if where is None:
            raise TaskError(
                f"{NAME}: expected a file of images, found none for the task {binding.task.name!r}; give "
                f"--external {NAME}=FILE (.npy, a table with a column 'image', or one image a line)"
            )
        self.images = read_images(where)
        if not self.images:
            raise TaskError(f"{NAME}: expected images, found none in {where}; give another file")
        super().__init__(NAME, binding.backbone, frozenset())

    def __len__(self) -> int:
        return len(self.images)

    def _examples(self, numbers: Sequence[int]) -> tuple[Examples, list[Origin]]:
        return [self.images[n] for n in numbers], [Origin(NAME, n, 0) for n in numbers]


def digits() -> Task:
    """The task ``digits`` with every training label: which digit was written? Nothing is downloaded.

    scikit-learn's 1,797 images of 8×8 pixels in shades from 0 to 16 (Alpaydin and Kaynak, Optical Recognition of
    Handwritten Digits, UCI repository, 1998), divided by class in the same way in every run.
    """
    from datasets import Dataset
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = pixels.astype(int).tolist()
    answers = labels.tolist()
    shares = [rows / len(answers) for rows in (DEV_ROWS, TEST_ROWS)]
    train, dev, test = split_rows("class", answers, shares)
    return Task(
        name="digits",
        kind="class",
        metric="accuracy",
        splits={
            split: Dataset.from_dict(
                {IMAGE: [images[i] for i in rows], "label": [answers[i] for i in rows]}
            )
            for split, rows in {"train": train, "dev": dev, "test": test}.items()
        },
        label_names=tuple(map(str, range(10))),
    )
