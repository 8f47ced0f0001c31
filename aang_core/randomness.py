"""All random numbers of a run come from here. Each follows from the run's seed, a named stream and counters.

No generator is carried from step to step. Step 400 can be repeated without the 399 before it. So a resumed run, another
number of processes or another engine draws exactly the same rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def derived_seed(seed: int, stream: str, *counters: int) -> int:
    """A 63-bit seed that depends on all arguments, equal on every machine.

    :param stream: what the numbers are for (``rows``, ``dropout``, …); streams are independent.
    :param counters: step, objective and so on, each ≥ 0.
    """
    entropy = (seed, zlib.crc32(stream.encode()), *counters)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, stream: str, *counters: int) -> torch.Generator:
    """A fresh CPU generator for one use; see `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, stream, *counters))


@contextmanager
def seeded(seed: int, stream: str, *counters: int, device: torch.device) -> Iterator[None]:
    """Reseed the global generators inside the block and restore them after it.

    Dropout and attention dropout accept no generator of their own; this is the one place where the global
    one is touched.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(seed, stream, *counters))
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Dropout off inside the block, so that passes draw no random numbers."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)
