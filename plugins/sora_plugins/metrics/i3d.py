"""I3D (Carreira and Zisserman 2017) as FVD looks with it, in the names of the file `i3d_pretrained_400.pt`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .inception import FrozenNorm

#: Sides of the frames, and frames, of a piece of video that it sees.
SIDE, FRAMES = 224, 16
#: Kinetics-400: what it tells apart; a piece of video is described by what is said of each.
CLASSES = 400
#: That of the code that published the file.
EPSILON = 1e-5
Size = tuple[int, int, int]
#: Channels of the branches of each block: 1x1, 3x3 (before, behind), the other 3x3 (the same), behind the pooling.
BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
#: The windows of the pooling in front of a block, which makes the video half as large and half as long.
POOLS = {"Mixed_4b": (3, 3, 3), "Mixed_5b": (2, 2, 2)}


def pad_same(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    """Zeros around (N, C, T, H, W) so that a window gives ceil(size / stride) places; the odd one is behind."""
    padding: list[int] = []
    for size, window, step in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(window - (size % step or step), 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)


def pool_same(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    """The maximum of each window; what it sees is never negative, so that zeros around it change nothing."""
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


class Unit(nn.Module):
    """A convolution without bias, normalised, then what is positive of it."""

    def __init__(self, channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel, kernel, kernel), (stride, stride, stride)
        self.conv3d = nn.Conv3d(channels, out_channels, kernel, stride, bias=False)
        self.bn = FrozenNorm(out_channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, out_channels, t, h, w)."""
        return F.relu(self.bn(self.conv3d(pad_same(x, self.kernel, self.stride))))


class Block(nn.Module):
    """Four branches that look at the same, joined."""

    def __init__(self, channels: int, parts: tuple[int, ...]) -> None:
        super().__init__()
        one, before, three, other_before, other_three, pooled = parts
        self.b0 = Unit(channels, one)
        self.b1a, self.b1b = Unit(channels, before), Unit(before, three, 3)
        self.b2a, self.b2b = Unit(channels, other_before), Unit(other_before, other_three, 3)
        self.b3b = Unit(channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to as many places."""
        pooled = self.b3b(pool_same(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], dim=1)


class Logits(nn.Module):
    """What is said of each class."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 400) of (N, C, t, 7, 7), t at least 2."""
        found: Tensor = self.conv3d(F.avg_pool3d(x, (2, 7, 7), stride=1))
        return found.mean(dim=(2, 3, 4))


class I3D(nn.Module):
    """Features (N, 400) of pieces of video, before the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        channels = 192
        for name, parts in BLOCKS.items():
            one, _, three, _, other_three, pooled = parts
            self.add_module(name, Block(channels, parts))
            channels = one + three + other_three + pooled
        self.logits = Logits(channels)

    def forward(self, pieces: Tensor) -> Tensor:
        """(N, 400) of pieces (N, 3, 16, H, W) in [0, 1], whose frames are squeezed to 224x224."""
        num_frames = pieces.shape[2]
        frames = pieces.transpose(1, 2).flatten(0, 1)
        frames = F.interpolate(frames, (SIDE, SIDE), mode="bilinear", align_corners=False)
        x = 2 * frames.unflatten(0, (-1, num_frames)).transpose(1, 2) - 1
        x = pool_same(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool_same(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in BLOCKS:
            if name in POOLS:
                x = pool_same(x, POOLS[name], (2, 2, 2))
            x = self.get_submodule(name)(x)
        found: Tensor = self.logits(x)
        return found
