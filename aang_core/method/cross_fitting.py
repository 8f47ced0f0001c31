"""Cross-fitting: each dev gradient comes from labelled training rows that its steps do not train on.

The labelled rows are cut into folds. While the search follows the dev gradient of one fold, the end-task trains on the
other folds, and auxiliary objectives draw no row with inputs of that fold. So the search costs no label, and it does
not follow rows that the steps have just memorised (cf. Chernozhukov et al., "Double/debiased machine
learning", 2018).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from aang_core.batch.rows import Row
from aang_core.errors import ConfigError
from aang_core.method.end_task import LabelledRows
from aang_core.randomness import generator


def fingerprint(row: Row) -> bytes:
    """Of a row's inputs: the same for all rows that the encoder cannot tell apart."""
    digest = hashlib.sha256()
    for name, value in sorted(row.inputs.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.digest()


class Folds:
    """The folds of one seed; rows with the same inputs share one.

    :param count: of folds, at least 2. :param every: steps for which a dev gradient, and so a fold, is held.
    :param balanced: draw every class equally often (`LabelledRows`).
    :raises ConfigError: where there are fewer different rows than folds.
    """

    def __init__(
        self, rows: Sequence[Row], count: int, every: int, seed: int, *, balanced: bool = False
    ) -> None:
        self.count, self.every = count, every
        keys = [fingerprint(row) for row in rows]
        distinct = list(dict.fromkeys(keys))
        if len(distinct) < count:
            raise ConfigError(
                f"meta.dev_folds = {count}: expected at least as many different labelled training rows, found "
                f"{len(distinct)}; lower it, or set it to 0"
            )
        order = torch.randperm(len(distinct), generator=generator(seed, "folds")).tolist()
        fold_of = {distinct[n]: place % count for place, n in enumerate(order)}
        self.keys = [frozenset(k for k in distinct if fold_of[k] == fold) for fold in range(count)]
        folded = [(fold_of[key], row) for key, row in zip(keys, rows, strict=True)]
        self.held = [[row for own, row in folded if own == fold] for fold in range(count)]
        self.others = [[row for own, row in folded if own != fold] for fold in range(count)]
        self._streams = [LabelledRows(rest, seed, balanced=balanced) for rest in self.others]

    def of(self, step: int) -> int:
        """The fold that is held while this step trains."""
        return step // self.every % self.count

    def take(self, step: int, count: int) -> list[Row]:
        """The step's labelled rows: the next ones of the endless sequence of all folds but the held one."""
        turn, place = step // (self.every * self.count), step % self.every
        return self._streams[self.of(step)].take((turn * self.every + place) * count, count)

    def is_held(self, step: int, row: Row) -> bool:
        """Whether a row has the inputs of one that is held while this step trains."""
        return fingerprint(row) in self.keys[self.of(step)]
