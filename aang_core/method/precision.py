"""The precision of passes: fp32, or bf16 by autocast where the device has units for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

_CPU_FACTS = Path("/proc/cpuinfo")
_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls such units of x86 processors (two kinds) and of ARM's."""


def bf16_units(device: torch.device) -> bool:
    """Whether a device multiplies bf16 numbers itself; else torch emulates it, some 50 times slower on CPUs.

    Reads what the processor says of itself and measures nothing, so that the answer is the same at every start.
    Devices other than CPUs and CUDA's are taken to have them.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type != "cpu" or not _CPU_FLAGS.isdisjoint(_cpu_flags())


def _cpu_flags() -> set[str]:
    """The abilities of the first core."""
    try:
        lines = _CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux: torch knows of some
        tests = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
        return {flag for flag, test in tests.items() if getattr(torch.cpu, test, bool)()}
    named = (line.partition(":") for line in lines)
    return next(
        (set(v.split()) for name, _, v in named if name.strip() in ("flags", "Features")), set()
    )


def precision_on(device: torch.device, wanted: str) -> str:
    """``fp32`` or ``bf16``: what `wanted` says, or for ``auto`` bf16 where the device has units for it."""
    if wanted != "auto":
        return wanted
    return "bf16" if bf16_units(device) else "fp32"


def precision_remark(device: torch.device, wanted: str, setting: str = "precision") -> str:
    """What the user should know of a run's precision; empty where there is nothing to say.

    :param setting: which one of ``training`` it is.
    """
    units = bf16_units(device)
    if wanted == "auto":
        taken = precision_on(device, wanted)
        return f"{setting}: {taken} ({device} has {'' if units else 'no '}bf16 units)"
    if wanted == "bf16" and not units:
        return (
            f"{setting}: training.{setting} is bf16, but {device} has no bf16 units, so that every product is "
            f"emulated, some 50 times slower on CPUs; set training.{setting} to fp32 or auto"
        )
    return ""


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The block that passes in a precision run in: ``fp32``, or ``bf16``."""
    return nullcontext() if precision == "fp32" else _bf16(device)


@contextmanager
def _bf16(device: torch.device) -> Iterator[None]:
    """Autocast; on GPUs also TF32 for the products that stay in fp32 (segment gradients).

    Casts of weights are not cached: weights change inside (the dev head is fitted), and a cast made without gradients
    would be used with them. On CPUs fp32 products stay with the usual kernels: the fast ones of near precision took
    three times as long for segments of 40 positions.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
