"""A small STDiT3 and its inputs, always with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sora_plugins.stdit.options import STDiTOptions
from sora_plugins.stdit.stdit3 import STDiT3, build

CONFIG = {
    "in_channels": 4,
    "hidden_size": 48,
    "depth": 2,
    "num_heads": 4,
    "caption_channels": 20,
    "model_max_length": 6,
}


def make_network(options: STDiTOptions | None = None, **changes: Any) -> STDiT3:
    torch.manual_seed(0)
    model = build({**CONFIG, **changes}, options)
    # The initial weights make the temporal blocks the identity; noise on everything lets every part count.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def make_inputs(batch: int = 2, size: tuple[int, int, int] = (3, 4, 6), seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, 6, dtype=torch.long)
    mask[0, 4:] = 0
    return {
        "x": torch.randn(batch, 4, *size, generator=generator),
        "timestep": torch.rand(batch, generator=generator) * 1000,
        "y": torch.randn(batch, 1, 6, 20, generator=generator),
        "mask": mask,
        "fps": torch.full((batch,), 24.0),
        "height": torch.full((batch,), float(size[1] * 8)),
        "width": torch.full((batch,), float(size[2] * 8)),
    }


@pytest.fixture
def network() -> Callable[..., STDiT3]:
    """Makes the network; keywords change its configuration."""
    return make_network


@pytest.fixture
def inputs() -> Callable[..., dict[str, Tensor]]:
    """Makes the arguments of a forward pass for a batch and a latent size (T, H, W)."""
    return make_inputs
