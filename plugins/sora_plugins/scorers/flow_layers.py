"""Parts that networks between two pictures share: residual blocks, and fetching features at places in pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance normalisation, added to what came in; (B, C, H, W) to (B, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
        changes = stride != 1 or inputs != outputs
        # In a list of its own because the published files call it downsample.0.
        self.downsample = nn.ModuleList([nn.Conv2d(inputs, outputs, 1, stride)] if changes else [])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = F.relu(F.instance_norm(self.conv1(x)))
        y = F.relu(F.instance_norm(self.conv2(y)))
        for convolution in self.downsample:
            x = F.instance_norm(convolution(x))
        return F.relu(x + y)


def residual_pair(inputs: int, outputs: int, stride: int = 1, *, bias: bool = False) -> nn.Sequential:
    """Two residual blocks; the first changes size and width."""
    first = ResidualBlock(inputs, outputs, stride, bias=bias)
    return nn.Sequential(first, ResidualBlock(outputs, outputs, bias=bias))


def pixel_grid(like: Tensor) -> Tensor:
    """Places (1, 2, h, w), x then y in pixels, of a map (..., h, w); of its device and number format."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=like.device, dtype=like.dtype),
        torch.arange(width, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack([x, y])[None]


def sample_at(features: Tensor, places: Tensor, *, padding: str = "zeros") -> Tensor:
    """Features (B, C, h, w) at places (B, 2, H, W), x then y in pixels, bilinear: (B, C, H, W).

    padding: what is outside, "zeros" or "border".
    """
    height, width = features.shape[-2:]
    scale = places.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    grid = places.permute(0, 2, 3, 1) * scale - 1
    return F.grid_sample(features, grid, mode="bilinear", padding_mode=padding, align_corners=True)


def warp(features: Tensor, flow: Tensor, *, padding: str = "zeros") -> Tensor:
    """Features (B, C, h, w) fetched from where a flow (B, 2, h, w), in pixels, points to."""
    return sample_at(features, pixel_grid(flow) + flow, padding=padding)
