"""Files: read JSON and TOML that anybody may have edited, and write files completely or not at all.

Every fault of a text is a `ValueError`. The libraries raise other errors in two cases: nesting deeper than Python's
stack, and whole numbers with more digits than Python converts.

A file is written to a temporary name, flushed, and renamed. After a crash, a kill or a full disk the old file is still
there. A safetensors file has a checksum of its tensors in its header, so it can be verified alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aang_core.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "sha256"
"""The key of the checksum in a file's own metadata."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write to, which becomes `path` when the block ends, and is removed where the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def same_file(path: Path, other: Path) -> None:
    """Give a file a second name, which takes no room; where the file system has no links, a copy."""
    if other.exists() and other.samefile(path):
        return  # renaming a second name over a first does nothing, and would leave it
    with replacing(other) as temporary:
        temporary.unlink(missing_ok=True)  # a killed process's, which may be a second name itself
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors completely or not at all.

    :returns: their checksum, which is also in the file.
    """
    from safetensors.torch import save_file  # here, for reports are written and read without torch

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = digest_of(plain)
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={CHECKSUM: digest})
    return digest


def load_tensors(path: Path, digest: str = "") -> dict[str, Tensor]:
    """What `save_tensors` has written, on the CPU.

    :param digest: what `save_tensors` gave back, where that is known.
    :raises RunError: where the file is missing, cut short, or differs from its checksum in a single bit.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get(CHECKSUM)
            # copies, in memory that is aligned as any other tensor's: products of others differ in their last bit
            tensors = {n: file.get_tensor(n).clone() for n in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as cause:
        raise RunError(f"{path} cannot be read ({cause})") from cause
    if digest_of(tensors) != expected or digest not in ("", expected):
        raise RunError(f"{path} is damaged (its checksum does not match)")
    return tensors


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of names, types, shapes and values; the order does not matter."""
    from torch import uint8

    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(uint8).numpy().data)
    return found.hexdigest()


def json_of(text: str) -> Any:
    """The value of a JSON text.

    :raises ValueError: where it is none.
    """
    return _parsed(json.loads, text)


def toml_of(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    :raises ValueError: where it is none.
    """
    found: dict[str, Any] = _parsed(tomllib.loads, text)
    return found


def json_lines(path: Path) -> list[Any]:
    r"""The values of a file that a run wrote, one a line. Only ``\n`` ends a line: texts may hold U+2028.

    :raises RunError: where the file cannot be read, or a line is damaged; it is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as cause:
        raise RunError(f"cannot read {path}: {cause.strerror}; the run is damaged") from cause
    except UnicodeDecodeError as cause:
        raise RunError(f"{path} is damaged: {cause}") from cause
    found = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        try:
            found.append(json_of(line))
        except ValueError as cause:
            raise RunError(f"{path}:{number} is damaged: {cause}") from cause
    return found


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except RecursionError as cause:
        raise ValueError("it is nested too deeply") from cause
