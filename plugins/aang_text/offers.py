"""What primitives ask of an encoder beside its protocol."""

from __future__ import annotations

from typing import Any

from aang_core.batch.protocols import Binding
from aang_core.errors import ModelError


def backbone_of(binding: Binding, primitive: str, *offers: str) -> Any:
    """The encoder, which must have every attribute in `offers`, and not as None.

    :raises ModelError: where it does not.
    """
    missing = [what for what in offers if getattr(binding.backbone, what, None) is None]
    if binding.backbone is None or missing:
        name = getattr(binding.backbone, "name", "no encoder")
        raise ModelError(
            f"{primitive}: expected an encoder that has {', '.join(missing) or 'a body'}, found "
            f"{name!r} without; use another encoder, or a space without {primitive}"
        )
    return binding.backbone
