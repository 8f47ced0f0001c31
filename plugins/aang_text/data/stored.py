"""Results that are made once and kept: safetensors files in the user's cache, each with its settings."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aang_core.errors import AangError, RunError


def digest(parts: Iterable[bytes]) -> str:
    """The sha256 of byte strings, each told apart from the next."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()


def weights_digest(module: nn.Module) -> str:
    """A module's parameters, as a digest."""
    arrays = (p.detach().float().cpu().contiguous().numpy() for p in module.parameters())
    return digest(array.tobytes() for array in arrays)


def tokenizer_digest(tokenizer: Any) -> str:
    """What a fast tokenizer does to texts, as a digest: its vocabulary, rules and special tokens.

    How it was last asked to cut and pad is left out: that changes with every call.
    """
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules |= {"truncation": None, "padding": None}
    return digest([json.dumps(rules, sort_keys=True).encode()])


def user_cache() -> Path:
    """aang's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aang"


def place_of(cache: Path | None, kind: str, settings: Mapping[str, Any]) -> Path:
    """The file for these settings, in `cache` or in the user's own."""
    name = digest([_text(settings).encode()])[:32]
    return (cache or user_cache()) / kind / f"{name}.safetensors"


def read(place: Path, settings: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The tensors of a file, or None where there is none.

    :raises AangError: where the file is damaged, or was made with other settings; names them.
    """
    from safetensors import SafetensorError, safe_open

    if not place.is_file():
        return None
    try:
        with safe_open(place, framework="pt") as file:
            made_with = json.loads((file.metadata() or {}).get("settings", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as cause:
        raise RunError(
            f"{place} is damaged ({cause}); delete it, and it will be made anew"
        ) from cause
    differing = [
        f"{name}: expected {value!r}, found {made_with.get(name)!r}"
        for name, value in settings.items()
        if made_with.get(name) != value
    ]
    if differing:
        raise AangError(
            f"{place} was made with other settings ({'; '.join(differing)}); delete it, and it will be "
            "made anew"
        )
    return tensors


def write(place: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file whole or not at all.

    :raises RunError: where the folder cannot be written to.
    """
    from safetensors.torch import save_file

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            half = Path(folder) / "half"
            save_file(dict(tensors), half, metadata={"settings": _text(settings)})
            os.replace(half, place)
    except OSError as cause:
        raise RunError(
            f"cannot write {place}: {cause.strerror}; set XDG_CACHE_HOME to a folder that you may write to"
        ) from cause


def text_tensor(texts: Iterable[str]) -> Tensor:
    """Texts as one tensor of bytes: safetensors hold nothing else."""
    return torch.tensor(list(json.dumps(list(texts)).encode()), dtype=torch.uint8)


def texts_of(tensor: Tensor) -> list[str]:
    """What `text_tensor` made."""
    texts: list[str] = json.loads(bytes(tensor.tolist()).decode())
    return texts


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
