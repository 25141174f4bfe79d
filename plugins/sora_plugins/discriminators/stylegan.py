"""StyleGAN's discriminator (Karras et al. 2020, arXiv 1912.04958) with 3-D convolutions and blurred halving.

Parameter names are those of the published network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import StyleOptions

SLOPE = 0.2
#: Groups of the norms inside the blocks, whatever the last norm has.
BLOCK_GROUPS = 32
LARGEST_FILTER = 7


class BlurPool3d(nn.Module):
    """Blurs with a binomial filter along all three axes, then takes every `stride`-th value.

    Zhang 2019, arXiv 1904.11486. Sides are reflected, so every axis must be longer than what is added to it.
    """

    filt: Tensor

    def __init__(self, channels: int, filter_size: int = 3, stride: int = 2) -> None:
        super().__init__()
        if not 1 <= filter_size <= LARGEST_FILTER:
            raise ValueError(f"filter size {filter_size} must be between 1 and {LARGEST_FILTER}")
        self.stride = stride
        before, after = (filter_size - 1) // 2, filter_size // 2
        self.pads = (before, after) * 3
        row = torch.tensor([float(math.comb(filter_size - 1, k)) for k in range(filter_size)])
        cube = row[:, None, None] * row[None, :, None] * row[None, None, :]
        self.register_buffer("filt", (cube / cube.sum()).repeat(channels, 1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> each axis divided by the stride, rounded up."""
        padded = F.pad(x, self.pads, mode="reflect")
        return F.conv3d(padded, self.filt.to(x.dtype), stride=self.stride, groups=x.shape[1])


class BlurBlock(nn.Module):
    """Two convolutions with a blurred halving between them, beside a blurred 1 x 1 x 1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, in_channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(BLOCK_GROUPS, in_channels)
        self.blur = BlurPool3d(in_channels)
        self.conv2 = nn.Conv3d(in_channels, out_channels, 1, bias=False)
        self.conv3 = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(BLOCK_GROUPS, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> (B, C_out, ceil(T / 2), ceil(H / 2), ceil(W / 2))."""
        shortcut = self.conv2(self.blur(x))
        x = self.blur(_act(self.norm1(self.conv1(x))))
        x = _act(self.norm2(self.conv3(x)))
        return (shortcut + x) / math.sqrt(2.0)


class StyleDiscriminator(nn.Module):
    """One logit (B, 1) for each clip (B, 3, T, H, W) of the size that it was built for."""

    def __init__(self, options: StyleOptions, *, num_frames: int, height: int, width: int) -> None:
        super().__init__()
        widths = [options.filters * factor for factor in options.channel_multipliers]
        last, shrink = widths[-1], 2 ** len(widths)
        _check(num_frames, height, width, len(widths))
        self.conv1 = nn.Conv3d(options.in_channels, options.filters, 3, padding=1)
        inputs = [options.filters, *widths[:-1]]
        self.res_block_list = nn.ModuleList(map(BlurBlock, inputs, widths))
        self.conv2 = nn.Conv3d(last, last, 3, padding=1)
        self.norm1 = nn.GroupNorm(options.num_groups, last)
        features = last * -(-num_frames // shrink) * (height // shrink) * (width // shrink)
        self.linear1 = nn.Linear(features, last)
        self.linear2 = nn.Linear(last, 1)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, T, H, W) -> (B, 1)."""
        x = _act(self.conv1(x))
        for block in self.res_block_list:
            x = block(x)
        x = _act(self.norm1(self.conv2(x))).flatten(1)
        logits: Tensor = self.linear2(_act(self.linear1(x)))
        return logits


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv3d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight, gain=nn.init.calculate_gain("relu"))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(num_frames: int, height: int, width: int, num_blocks: int) -> None:
    shrink = 2**num_blocks
    if height % shrink or width % shrink:
        raise ValueError(f"needs sides that are multiples of {shrink}, not {height}x{width}")
    frames = num_frames
    for _ in range(num_blocks):
        if frames < 2:
            raise ValueError(f"needs more frames than {num_frames}: {num_blocks} blocks halve them, and one is too few")
        frames = -(-frames // 2)


def build(options: StyleOptions, *, num_frames: int, height: int, width: int) -> StyleDiscriminator:
    """For clips of one size. Raises ValueError for a size that cannot be halved as often as there are blocks."""
    return StyleDiscriminator(options, num_frames=num_frames, height=height, width=width)
