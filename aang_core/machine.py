"""What this machine offers: its cores, and memory that training may keep from one step to the next."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Numbers of glibc's parameters (mallopt(3))."""

_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
_AFTERWARDS = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}
"""What glibc would have come to by itself. Its initial values would stay as they are, once anybody has set one."""

_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def kept_pages() -> Iterator[None]:
    """Inside the block freed memory stays with the process, so that the next step finds its pages in place.

    glibc asks the system for every large tensor anew and gives it back at once; each of its pages then costs a fault
    and is filled with zeros, in every step (docs/performance.md). Behind the block the free memory is given back.
    Nothing happens under another C library, or where the environment says how glibc is to allocate.
    """
    library = _glibc()
    if library is None or any(name in os.environ for name in _SET_BY_USER):
        yield
        return
    for parameter, value in _KEPT.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _AFTERWARDS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None
