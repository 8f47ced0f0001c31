"""``aang doctor``: versions, devices, plugins, encoders and disks, and what to repair.

Each check gives findings: what was found and, if it is a fault, how to repair it. Nothing is downloaded or changed,
except for a file that is written and removed to test whether a folder is writable.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import attrs
import click
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from aang_cli import options, render
from aang_core.errors import AangError
from aang_core.machine import cores
from aang_core.registry.records import MEND, NOTE, OK, HealthFinding, load_factory

LEAST_SPACE = 2**30
"""Bytes below which a disk is called full: a run of a small encoder keeps half as much."""

_DRIVER = Path("/proc/driver/nvidia/version")

_SWITCHES = (
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"),
    *("AANG_PLUGINS", "AANG_AGAINST", "AANG_PAGE"),
)


@click.command("doctor")
@click.option(
    "--out",
    metavar="DIR",
    type=options.PATH,
    default=Path("runs"),
    show_default=True,
    help="Where runs are written.",
)
@options.as_json
def command(out: Path, as_json: bool) -> None:
    """Check this installation.

    Exits with 1 if something has to be mended, and says how.

    \b
    Example:
      aang doctor
      aang doctor --json --out big-disk/runs
    """
    found = findings(out)
    broken = [finding for finding in found if finding.state == MEND]
    rows = [attrs.asdict(finding) for finding in found]
    if as_json:
        render.document({"healthy": not broken, "findings": rows})
    else:
        render.table(rows, columns=("check", "state", "found", "do"), title="aang doctor")
    if broken:
        names = ", ".join(finding.check for finding in broken)
        render.remark(f"to be mended: {names}")
        raise click.exceptions.Exit(1)
    if not as_json:
        render.remark("nothing has to be mended")


def findings(out: Path) -> list[HealthFinding]:
    """Everything, in the order in which people read it.

    :param out: the folder of runs.
    """
    checks: list[Callable[[], Iterator[HealthFinding]]] = [
        _python,
        _dependencies,
        _devices,
        _plugins,
        _backbones,
        lambda: _disks(out),
        _switches,
    ]
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[HealthFinding]:
    yield HealthFinding("aang", OK, version("aang"))
    wanted = SpecifierSet(metadata("aang")["Requires-Python"] or "")
    found = platform.python_version()
    good = wanted.contains(found, prereleases=True)
    do = "" if good else f"install aang under a Python {wanted}"
    yield HealthFinding("python", OK if good else MEND, f"{found} ({sys.executable})", do)


def _dependencies() -> Iterator[HealthFinding]:
    """Every requirement against what is installed; those of extras only have to fit where they are there."""
    for text in metadata("aang").get_all("Requires-Dist") or []:
        wanted = Requirement(text)
        extra = _extra_of(wanted)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        yield _dependency(wanted, extra)


def _extra_of(wanted: Requirement) -> str:
    """The extra that a requirement belongs to; empty for those that everybody needs."""
    _, found, rest = str(wanted.marker or "").partition("extra ==")
    return rest.strip().strip("\"'").rstrip(")\"'") if found else ""


def _dependency(wanted: Requirement, extra: str) -> HealthFinding:
    needs = f"{wanted.name}{wanted.specifier}"
    install = f"pip install '{needs}'"
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        if extra:
            return HealthFinding(wanted.name, NOTE, "not installed", f"pip install 'aang[{extra}]'")
        return HealthFinding(wanted.name, MEND, f"not installed, expected {needs}", install)
    if not wanted.specifier.contains(found, prereleases=True):
        return HealthFinding(wanted.name, MEND, f"{found}, expected {wanted.specifier}", install)
    return HealthFinding(wanted.name, OK, found)


def _devices() -> Iterator[HealthFinding]:
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as cause:
        yield HealthFinding(
            "torch works", MEND, f"cannot be imported: {cause}", "install torch again"
        )
        return
    threads = torch.get_num_threads()
    given = os.environ.get("OMP_NUM_THREADS")
    said = f"; OMP_NUM_THREADS={given}" if given else ""
    yield HealthFinding("threads", OK, f"{threads} on {cores()} cores{said}")
    yield _precision()
    if not torch.cuda.is_available():
        yield _without_cuda(torch.version.cuda or torch.version.hip)
        return
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        memory = f"{card.total_memory / 2**30:.0f} GiB"
        yield HealthFinding("device", OK, f"cuda:{number}, {card.name}, {memory}")


def _precision() -> HealthFinding:
    """Which precision suits the device that a run would take."""
    import torch

    from aang_core.method.precision import bf16_units

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if bf16_units(device):
        return HealthFinding("bf16", OK, f"{device} has units for training.precision=bf16")
    do = "leave training.precision at fp32, or set it to auto"
    return HealthFinding(
        "bf16", NOTE, f"{device} has no such units and would be slow with bf16", do
    )


def _without_cuda(built: str | None) -> HealthFinding:
    """Why no GPU is used, where this machine has an NVIDIA driver.

    :param built: the CUDA version that torch is built for, if any.
    """
    if not _DRIVER.exists():
        return HealthFinding("device", OK, "cpu")
    if built is None:
        do = "install a torch built for CUDA to use the GPU"
        return HealthFinding("device", NOTE, "cpu: this torch is built without CUDA", do)
    found = f"cpu: torch is built for CUDA {built}, and cannot use the GPU with this driver"
    return HealthFinding(
        "device", MEND, found, "update the driver, or install a torch built for it"
    )


def _plugins() -> Iterator[HealthFinding]:
    from aang_core.registry.registry import load_registry

    try:
        registry = load_registry()
    except AangError as cause:
        yield HealthFinding(
            "plugins", MEND, str(cause), "until then, AANG_PLUGINS=text leaves others out"
        )
        return
    for plugin in registry.plugins:
        origin = plugin.provenance
        brought = [
            name for name, entry in registry.primitives.items() if entry.plugin == origin.plugin
        ]
        yield HealthFinding(
            f"plugin {origin.plugin}",
            OK,
            f"{origin.distribution} {origin.version}, {len(brought)} primitives",
        )
    for failed in registry.failed:
        origin = failed.provenance
        yield HealthFinding(
            f"plugin {origin.plugin}",
            MEND,
            f"{origin.distribution} {origin.version} failed to import: {failed.cause}",
            f"upgrade or uninstall {origin.distribution}",
        )


def _backbones() -> Iterator[HealthFinding]:
    """What the kinds of encoders say about this installation."""
    from aang_core.registry.registry import load_registry

    try:
        kinds = load_registry().backbones.values()
    except AangError:  # `_plugins` has said it
        return
    for kind in (entry.record for entry in kinds):
        if not kind.check:
            continue
        try:
            yield from load_factory(kind.check)()
        except AangError as cause:
            yield HealthFinding(f"encoders {kind.name}", MEND, str(cause), "upgrade its plugin")


def _disks(out: Path) -> Iterator[HealthFinding]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    places = {
        "runs": out,
        "cache": cache / "aang",
        "hub cache": hub,
        "temporary files": Path(tempfile.gettempdir()),
    }
    for name, place in places.items():
        there = next(
            each for each in (place.absolute(), *place.absolute().parents) if each.exists()
        )
        free = shutil.disk_usage(there).free
        said = f"{free / 2**30:.1f} GiB free in {place}"
        if not _can_write(there):
            do = f"make {there} writable, or choose another folder"
            yield HealthFinding(name, MEND, f"{there} cannot be written to", do)
        elif free < LEAST_SPACE:
            yield HealthFinding(name, MEND, said, "free at least 1 GiB, or choose another disk")
        else:
            yield HealthFinding(name, OK, said)


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _switches() -> Iterator[HealthFinding]:
    given = {name: os.environ[name] for name in _SWITCHES if os.environ.get(name)}
    for name, value in given.items():
        offline = value.upper() in {"1", "ON", "YES", "TRUE"} and name.endswith("OFFLINE")
        do = "unset it to download models and data sets" if offline else ""
        yield HealthFinding(name, NOTE, value, do)
    if not given:
        yield HealthFinding("offline switches", OK, "none is set")
