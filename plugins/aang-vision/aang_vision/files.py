"""Files of images: ``.npy`` arrays, tables with a column ``image``, or one image a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aang_core.data.readers import SUFFIXES, Faults, file_and_column, read_lines, read_table
from aang_core.errors import TaskError
from aang_vision.images import IMAGE


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
