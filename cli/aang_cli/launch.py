"""``aang run --processes N``: the same command again in N processes, by torch's own launcher."""

from __future__ import annotations

import os
import sys

from aang_core.cores import cores


def launch(processes: int) -> None:
    """Replace this process by torch's launcher, which starts this very command `processes` times.

    Several machines, or another launcher: ``torchrun … -m aang_cli run …`` and ``accelerate launch -m aang_cli run …``
    do the same, each in its own way.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", str(processes), "-m", "aang_cli", *sys.argv[1:]]
    sys.stdout.flush()
    os.execv(sys.executable, command)
