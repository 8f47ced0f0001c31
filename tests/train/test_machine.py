"""Memory that training keeps, counted in page faults."""

import resource

import pytest
import torch

from aang_core import machine

SIZE = 12_000_000  # of 4 bytes: more than glibc ever keeps by itself

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


@pytest.fixture
def unset(monkeypatch):
    for name in machine._SET_BY_USER:
        monkeypatch.delenv(name, raising=False)


@needs_glibc
def test_pages_are_kept_inside_the_block_and_given_back_behind_it(unset):
    outside = faults()
    with machine.kept_pages():
        faults(3 * REPEATS)  # until the pages of some tensors are there
        inside, kept = faults(), resident()
    assert inside < outside / 4
    assert resident() < kept - 3 * SIZE  # of 4 · SIZE bytes and more


@needs_glibc
def test_what_the_environment_says_about_glibc_stands(unset, monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "65536")
    outside = faults()
    with machine.kept_pages():
        faults(3 * REPEATS)
        assert faults() > outside / 2


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(machine, "_glibc", lambda: None)
    with machine.kept_pages():
        pass
