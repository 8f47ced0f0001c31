"""Several processes as one trainer: how they share the work, and the sums between them.

Every process holds the whole model and draws the same plan; each takes some whole objectives of a step, so
dots and norms add up exactly. Nothing here starts processes: `torchrun`, `accelerate launch` or the command line do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn


@attrs.frozen
class Processes:
    """This process's number and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def shard(self, sizes: Sequence[int]) -> list[int]:
        """Which of a step's objectives this process takes, by their rows.

        The largest is given away first, always to the least loaded process.
        """
        taken: list[list[int]] = [[] for _ in range(self.size)]
        load = [0] * self.size
        for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
            least = min(range(self.size), key=lambda p: (load[p], p))
            taken[least].append(i)
            load[least] += sizes[i]
        return sorted(taken[self.rank])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits on each; the tensor lies on the encoder's device."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, count: int, device: torch.device) -> int:
        """The sum of one whole number over all processes.

        :param device: the encoder's, since NCCL adds up nothing that lies on the CPU.
        """
        if self.size == 1:
            return int(count)  # nothing to ask a device for, which would have to finish first
        return int(self.sum(torch.tensor(count, device=device)))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up every ``.grad``; one that some process lacks counts as zero there, one that all lack stays None.

        (An optimiser decays a weight whose gradient is zero, and leaves one alone that has none.)
        """
        if self.size == 1:
            return
        given = list(parameters)
        device = given[0].device
        present = torch.tensor([p.grad is not None for p in given], dtype=torch.int32)
        anywhere = self.sum(present.to(device)).tolist()
        for parameter, count in zip(given, anywhere, strict=True):
            if count:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def barrier(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def join_processes() -> Processes:
    """The group that the environment describes (``RANK``, ``WORLD_SIZE``), or this process alone.

    NCCL on CUDA, gloo elsewhere.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Processes()
    if not dist.is_initialized():
        if torch.cuda.is_available():  # before the group: NCCL takes the current device
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size())


def leave_processes() -> None:
    """Leave the group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
