"""Training fewer parameters: frozen lower layers, and low-rank adapters by peft.

Both work with every method and engine. The alignment is computed over the parameters that train, and an adapter's two
matrices are linear layers like any other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aang_core.errors import ModelError

_SCALE = 2
"""LoRA's alpha over its rank; peft's own examples use it."""


def freeze_lower_layers(body: nn.Module, layers: int) -> None:
    """Freeze the embeddings (all that comes before the layers) and the lowest `layers` layers.

    :raises ModelError: where the encoder has fewer layers, or they cannot be found.
    """
    name, stack = _stack(body)
    if layers > len(stack):
        raise ModelError(
            f"cannot freeze {layers} layers: {type(body).__name__} has {len(stack)} "
            "(lower training.frozen_layers)"
        )
    for key, parameter in body.named_parameters():
        place = key.removeprefix(f"{name}.").split(".")[0] if key.startswith(f"{name}.") else ""
        if (place.isdigit() and int(place) < layers) or _before(body, key, name):
            parameter.requires_grad_(False)


def add_adapters(body: nn.Module, rank: int, seed: int) -> None:
    """Put LoRA adapters on every linear layer of the encoder's stack and freeze everything else.

    :raises ModelError: where peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as cause:
        raise ModelError("training.lora_rank needs peft: pip install 'aang[peft]'") from cause
    name, stack = _stack(body)
    targets = [f"{name}.{key}" for key, m in stack.named_modules() if isinstance(m, nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=_SCALE * rank, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, body)
    for key, parameter in body.named_parameters():
        parameter.requires_grad_("lora_" in key)


def plain_state(body: nn.Module) -> dict[str, Tensor]:
    """The encoder's state under its own names, with adapters merged into the weights that they change."""
    state = {}
    adapted = {name: module for name, module in body.named_modules() if hasattr(module, "lora_A")}
    for key, tensor in body.state_dict().items():
        owner = key.rsplit(".base_layer.", 1)[0] if ".base_layer." in key else ""
        if owner in adapted and key.endswith(".weight"):
            module: Any = adapted[owner]
            state[f"{owner}.weight"] = tensor + module.get_delta_weight("default").detach()
        elif owner in adapted:
            state[key.replace(".base_layer.", ".")] = tensor
        elif ".lora_" not in key:
            state[key] = tensor
    return state


def layers_of(body: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """The encoder's layers and their name; None where it has no list of them."""
    config: Any = body.config
    for name, module in body.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return name, module
    return None


def _stack(body: nn.Module) -> tuple[str, nn.ModuleList]:
    found = layers_of(body)
    if found is None:
        config: Any = body.config
        raise ModelError(
            f"{type(body).__name__} has no list of {config.num_hidden_layers} layers; "
            "frozen layers and adapters cannot be used with it"
        )
    return found


def _before(body: nn.Module, key: str, stack: str) -> bool:
    """Whether a parameter comes before the first layer in the order in which the encoder lists them."""
    names = [name for name, _ in body.named_parameters()]
    first = next(i for i, name in enumerate(names) if name.startswith(f"{stack}."))
    return names.index(key) < first
