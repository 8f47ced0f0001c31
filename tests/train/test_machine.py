"""Memory that training keeps, counted in page faults, in a process of its own."""

import json
import os
import resource
import subprocess
import sys

import pytest
import torch

from aang_core import machine

SIZE = 12_000_000
"""Numbers of a tensor of 48 MB: more than glibc ever keeps by itself."""

REPEATS = 8

needs_glibc = pytest.mark.skipif(machine._glibc() is None, reason="needs glibc")


def faults(repeats: int = REPEATS) -> int:
    """Page faults of so many large tensors, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repeats):
        torch.zeros(SIZE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process that lie in memory."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measure() -> dict[str, int]:
    """Faults before and inside the block, and what lies in memory there and behind it."""
    found = {"outside": faults()}
    with machine.kept_pages():
        faults(3 * REPEATS)  # until the pages of some tensors are there
        found |= {"inside": faults(), "kept": resident()}
    return {**found, "left": resident()}


def measured(**environment: str) -> dict[str, int]:
    """The same in a process of its own, under these variables alone of those that glibc reads."""
    own = {n: v for n, v in os.environ.items() if n not in machine._SET_BY_USER} | environment
    code = "import json, test_machine; print(json.dumps(test_machine.measure()))"
    ours = {**own, "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=ours, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@needs_glibc
def test_pages_are_kept_inside_the_block_and_given_back_behind_it():
    found = measured()
    assert found["inside"] < found["outside"] / 4
    assert found["left"] < found["kept"] - 3 * SIZE  # of 4 · SIZE bytes and more


@needs_glibc
def test_what_the_environment_says_about_glibc_stands():
    found = measured(MALLOC_MMAP_MAX_="65536")
    assert found["inside"] > found["outside"] / 2


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(machine, "_glibc", lambda: None)
    with machine.kept_pages():
        pass
