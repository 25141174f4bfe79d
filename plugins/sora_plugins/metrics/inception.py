"""Inception v3 as FID looks with it (Szegedy et al. 2016; weights of 2015-12-05), in the names of published files.

It differs from torchvision's: means leave out the padding, and the last block takes the maximum instead of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Sides of the frames that it sees.
SIDE = 299
DIMENSIONS = 2048
#: What the published file has behind the features, by which it is told from torchvision's, which has 1000.
CLASSES = 1008
EPSILON = 1e-3


class Layer(NamedTuple):
    """A convolution: its name in files, what it gives, its window."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


#: One layer, or two that look at the same and are joined.
Step = Layer | tuple[Layer, Layer]
Pool = Literal["average", "maximum", "reduce"]


class FrozenNorm(nn.Module):
    """Batch normalisation by stored statistics. weight, bias, running_mean, running_var: (C,)."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.epsilon)


class Convolution(nn.Module):
    """A convolution without bias, normalised, then what is positive of it."""

    def __init__(self, channels: int, layer: Layer, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, padding, bias=False)
        self.bn = FrozenNorm(layer.channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, layer.channels, h, w)."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches of layers that look at the same, and a pooled one, joined; `pooled`: channels behind the pooling."""

    def __init__(self, channels: int, *branches: Sequence[Step], pool: Pool, pooled: int | None = None) -> None:
        super().__init__()
        self.branches, self.pool = branches, pool
        self.out_channels = channels if pooled is None else pooled
        for branch in branches:
            inside = channels
            for step in branch:
                layers = step if not isinstance(step, Layer) else (step,)
                for layer in layers:
                    # A step that makes frames smaller has no padding.
                    padding = (0, 0) if layer.stride > 1 else (layer.kernel[0] // 2, layer.kernel[1] // 2)
                    self.add_module(layer.name, Convolution(inside, layer, padding))
                inside = sum(layer.channels for layer in layers)
            self.out_channels += inside
        self.has_pooled = pooled is not None
        if pooled is not None:
            self.branch_pool = Convolution(channels, Layer("branch_pool", pooled), (0, 0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, h, w)."""
        found = []
        for branch in self.branches:
            y = x
            for step in branch:
                layers = step if not isinstance(step, Layer) else (step,)
                y = torch.cat([self.get_submodule(layer.name)(y) for layer in layers], dim=1)
            found.append(y)
        if self.pool == "average":
            y = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        elif self.pool == "maximum":
            y = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            y = F.max_pool2d(x, 3, stride=2)
        found.append(self.branch_pool(y) if self.has_pooled else y)
        return torch.cat(found, dim=1)


def block_35(channels: int, pooled: int) -> Mixed:
    """A block of frames of 35x35."""
    return Mixed(
        channels,
        [Layer("branch1x1", 64)],
        [Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))],
        [Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3))],
        pool="average",
        pooled=pooled,
    )


def to_17(channels: int) -> Mixed:
    """A block that makes frames 17x17."""
    return Mixed(
        channels,
        [Layer("branch3x3", 384, (3, 3), 2)],
        [Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3), 2)],
        pool="reduce",
    )


def block_17(channels: int, inner: int) -> Mixed:
    """A block of frames of 17x17."""
    across, down = (1, 7), (7, 1)
    return Mixed(
        channels,
        [Layer("branch1x1", 192)],
        [Layer("branch7x7_1", inner), Layer("branch7x7_2", inner, across), Layer("branch7x7_3", 192, down)],
        [
            Layer("branch7x7dbl_1", inner),
            Layer("branch7x7dbl_2", inner, down),
            Layer("branch7x7dbl_3", inner, across),
            Layer("branch7x7dbl_4", inner, down),
            Layer("branch7x7dbl_5", 192, across),
        ],
        pool="average",
        pooled=192,
    )


def to_8(channels: int) -> Mixed:
    """A block that makes frames 8x8."""
    return Mixed(
        channels,
        [Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2)],
        [
            Layer("branch7x7x3_1", 192),
            Layer("branch7x7x3_2", 192, (1, 7)),
            Layer("branch7x7x3_3", 192, (7, 1)),
            Layer("branch7x7x3_4", 192, (3, 3), 2),
        ],
        pool="reduce",
    )


def block_8(channels: int, pool: Pool) -> Mixed:
    """A block of frames of 8x8."""
    across, down = (1, 3), (3, 1)
    return Mixed(
        channels,
        [Layer("branch1x1", 320)],
        [Layer("branch3x3_1", 384), (Layer("branch3x3_2a", 384, across), Layer("branch3x3_2b", 384, down))],
        [
            Layer("branch3x3dbl_1", 448),
            Layer("branch3x3dbl_2", 384, (3, 3)),
            (Layer("branch3x3dbl_3a", 384, across), Layer("branch3x3dbl_3b", 384, down)),
        ],
        pool=pool,
        pooled=192,
    )


class Inception(nn.Module):
    """Features (N, 2048) of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, Layer("", 32, (3, 3), 2), (0, 0))
        self.Conv2d_2a_3x3 = Convolution(32, Layer("", 32, (3, 3)), (0, 0))
        self.Conv2d_2b_3x3 = Convolution(32, Layer("", 64, (3, 3)), (1, 1))
        self.Conv2d_3b_1x1 = Convolution(64, Layer("", 80), (0, 0))
        self.Conv2d_4a_3x3 = Convolution(80, Layer("", 192, (3, 3)), (0, 0))
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = block_35(192, 32), block_35(256, 64), block_35(288, 64)
        self.Mixed_6a = to_17(288)
        self.Mixed_6b, self.Mixed_6c = block_17(768, 128), block_17(768, 160)
        self.Mixed_6d, self.Mixed_6e = block_17(768, 160), block_17(768, 192)
        self.Mixed_7a = to_8(768)
        self.Mixed_7b, self.Mixed_7c = block_8(1280, "average"), block_8(DIMENSIONS, "maximum")

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 2048) of frames (N, 3, H, W) in [0, 1], which are squeezed to 299x299 as pytorch-fid does it."""
        x = 2 * F.interpolate(frames, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed_"):
                x = block(x)
        return x.mean(dim=(2, 3))
