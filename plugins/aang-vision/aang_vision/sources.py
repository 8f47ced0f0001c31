"""Stage 1: further images without labels."""

from __future__ import annotations

from collections.abc import Sequence

from aang_core.batch.parts import Examples, ExampleSource
from aang_core.batch.protocols import Binding
from aang_core.batch.rows import Origin
from aang_core.errors import TaskError
from aang_vision.files import read_images

NAME = "images"


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
