"""Training low-rank adapters instead of the weights themselves, through peft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sora_cli.errors import MissingError, UsageError

from .optimizer import blocks_of

if TYPE_CHECKING:
    from sora_cli.config.train_schema import LoraSettings


def use_lora(network: Any, settings: LoraSettings, seed: int) -> None:
    """Put adapters on the linear layers of a network's blocks, the only parts that are trained then.

    settings.targets: names or ends of names of linear layers instead, e.g. attn.qkv. seed: of their initial weights.
    Raises MissingError without peft, UsageError when no layer fits.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingError("--lora needs peft", hint="pip install 'sora-cli[train]'") from error
    blocks = () if settings.targets else blocks_of(network, "--lora without model.lora.targets")
    inside = {module for block in blocks for module in block.modules()}
    layers = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and (any(name == end or name.endswith(f".{end}") for end in settings.targets) or not settings.targets)
        and (settings.targets or module in inside)
    ]
    if not layers:
        raise UsageError(f"no linear layer is called {', '.join(settings.targets)}", hint="examples: attn.qkv, mlp.fc1")
    torch.manual_seed(seed)
    options: dict[str, Any] = {"r": settings.rank, "lora_alpha": settings.alpha, "lora_dropout": settings.dropout}
    inject_adapter_in_model(LoraConfig(**options, target_modules=layers), network)
