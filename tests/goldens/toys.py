"""Stand-in networks that the JSON files describe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def toy_network(x: Tensor, t: Tensor, y: Tensor, x_mask: Tensor | None = None, **_ignored: Any) -> Tensor:
    """The stand-in "toy-v1"."""
    channels = x.shape[1]
    c = y.flatten(1).mean(dim=1).view(-1, 1, 1, 1, 1)
    s = (t.float() / 1000)[:, None].expand(-1, x.shape[2])
    if x_mask is not None:
        s = torch.where(x_mask, s, torch.zeros_like(s))
    s = s[:, None, :, None, None]
    k = 0.1 * (torch.arange(channels) - (channels - 1) / 2).view(1, -1, 1, 1, 1)
    first = (0.2 + 0.75 * s) * x + 0.3 * torch.sin(1.3 * x + 2 * s + c) + 0.1 * x.mean(dim=2, keepdim=True) + k
    return torch.cat([first, 0.5 * torch.cos(0.7 * x - s + 0.5 * c)], dim=1)
