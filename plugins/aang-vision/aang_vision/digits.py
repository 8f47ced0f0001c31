"""The task ``digits``: which digit was written? scikit-learn's bundled images, so nothing is downloaded.

1,797 images of 8×8 pixels in shades from 0 to 16 (Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI
repository, 1998), divided by class in the same way in every run.
"""

from __future__ import annotations

from aang_core.data.splits import split_rows
from aang_core.data.task import Task
from aang_vision.images import IMAGE

DEV_ROWS, TEST_ROWS = 200, 597
"""What is left is for training; ``--train-rows`` keeps the labels of a few."""


def load() -> Task:
    """The task with every training label."""
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
